//go:build unix

package direct

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// reuse lets several TCP sockets have one local port: the one that listens, and those
// that dial.
func reuse(_, _ string, socket syscall.RawConn) error {
	var err error
	if failed := socket.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	}); failed != nil {
		return failed
	}
	return err
}
