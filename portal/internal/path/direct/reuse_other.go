//go:build !unix

package direct

import "syscall"

// reuse lets several TCP sockets have one local port: the one that listens, and those
// that dial.
func reuse(_, _ string, socket syscall.RawConn) error {
	var err error
	if failed := socket.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}); failed != nil {
		return failed
	}
	return err
}
