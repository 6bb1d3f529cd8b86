//go:build !linux

package carrier

import "net"

// limitUnsent does nothing: the option it sets exists on Linux.
func limitUnsent(net.Conn, int) {}
