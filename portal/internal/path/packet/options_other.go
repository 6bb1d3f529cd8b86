//go:build !linux

package packet

import "syscall"

// setOptions leaves it to quic-go, which does it for the first socket: one that
// takes its place sends packets that may be cut, and hears of no marks.
func setOptions(string, syscall.RawConn) error { return nil }
