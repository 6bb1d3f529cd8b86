//go:build unix

package packet

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// refuseBroadcast has the system refuse what is sent to all hosts of a network: it alone knows
// which addresses those are, a peer may name one of them as its own, and package net allows it.
func refuseBroadcast(raw syscall.RawConn) (err error) {
	if failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) }); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("forbid broadcasts: %w", err)
	}
	return nil
}
