//go:build !linux

package control

import "syscall"

// retrySoon leaves the system's own times.
func retrySoon(syscall.RawConn) {}
