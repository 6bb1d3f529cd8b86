// Package reserve keeps a process's last descriptors for what steers it and
// for what it carries already: connections between portal, relay and server,
// callers of the Unix socket, files, the pipes of a relay's pairs. What
// strangers and applications can open as many of as they like (accepted
// connections, dialled targets) is checked here, and closed again when it got
// one of the last.
package reserve

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Size is how many descriptors are kept, or a quarter of a limit that is lower
// than four times that.
const Size = 16

// Accept accepts a connection that does not get one of the last descriptors.
// Its error then wraps syscall.EMFILE, as that of a process without any.
func Accept(l net.Listener) (net.Conn, error) {
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	if err := Check(c); err != nil {
		c.Close()
		return nil, fmt.Errorf("accept at %v: %w", l.Addr(), err)
	}
	return c, nil
}

// Check reports whether a connection has one of the last descriptors. Others
// than sockets have none.
func Check(c net.Conn) error {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	return CheckRaw(raw)
}

// CheckRaw is Check of what a net.Dialer's or net.ListenConfig's Control gets.
//
// It tells by the descriptor's number: the system gives the lowest that is free
// (POSIX.1-2024, section 2.6), so all below it are taken.
func CheckRaw(raw syscall.RawConn) error {
	most := Limit() // may have changed since the last time
	kept := min(Size, most/4)
	var within error
	err := raw.Control(func(fd uintptr) {
		if uint64(fd) >= most-kept {
			within = fmt.Errorf("%w: the last %d of %d are kept", syscall.EMFILE, kept, most)
		}
	})
	return errors.Join(err, within)
}
