//go:build linux

// Package handover gives a TCP connection that one daemon has accepted to another one of
// the same machine, so that both share a port: the server owns port 443, and gives the
// relay what is for a relay: a connection that begins as a bare preface does (package leg), or
// whose TLS client asks for netport-relay/1 and for nothing else.
//
// Who takes listens on a Unix socket that keeps packets apart (local.ListenPackets). Who
// gives connects for each connection, sends one packet, and is done: the descriptor of the
// connection (SCM_RIGHTS) with the bytes that were read of it. There is no answer. From
// then on the connection is the taker's alone, whatever becomes of the giver.
package handover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// MaxHead is how many bytes that were read of a connection may go with it.
const MaxHead = 16 << 10

// patience is how long either side waits for the other: nothing but a few system calls
// is between them.
const patience = time.Second

// Give hands c, of which head was read, to who listens on the socket at path. c stays open
// here, and is the caller's to close whatever is returned.
func Give(path string, c *net.TCPConn, head []byte) error {
	if len(head) == 0 || len(head) > MaxHead {
		return fmt.Errorf("hand over a connection of which %d bytes were read: 1 to %d are possible", len(head), MaxHead)
	}
	// It connects at once or not at all: there is no queue for a place in the queue.
	to, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("hand over to %s: %w", path, cause(err))
	}
	defer to.Close()
	to.SetWriteDeadline(time.Now().Add(patience))
	raw, err := c.SyscallConn()
	if err == nil {
		var sent error
		err = raw.Control(func(fd uintptr) { _, _, sent = to.WriteMsgUnix(head, unix.UnixRights(int(fd)), nil) })
		err = errors.Join(err, sent)
	}
	if err != nil {
		return fmt.Errorf("hand over to %s: %w", path, cause(err))
	}
	return nil
}

// cause leaves out what the error of a socket repeats.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err
	}
	return err
}

// Take returns the connection that a caller of the taker's socket hands over, and what was
// read of it: 1 to MaxHead bytes. It waits for a second at most, and closes the caller's
// connection. Whatever came with an error is closed.
func Take(caller net.Conn) (c *net.TCPConn, head []byte, err error) {
	defer caller.Close()
	from, ok := caller.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("take over a connection: %T is no Unix socket", caller)
	}
	from.SetReadDeadline(time.Now().Add(patience))
	b, control := make([]byte, MaxHead), make([]byte, unix.CmsgSpace(4))
	n, m, flags, _, err := from.ReadMsgUnix(b, control)
	files := descriptors(control[:m]) // a packet without bytes, which is an error, may have some
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil, errors.New("take over a connection: the caller has sent nothing")
	case err != nil:
		return nil, nil, fmt.Errorf("take over a connection: %w", cause(err))
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(files) != 1:
		return nil, nil, fmt.Errorf("take over a connection: %d bytes with %d descriptors came (flags %#x), expected 1 to %d bytes with one", n, len(files), flags, MaxHead)
	}
	if c, err = connection(files[0]); err != nil {
		return nil, nil, fmt.Errorf("take over a connection: %w", err)
	}
	return c, bytes.Clone(b[:n]), nil
}

// descriptors returns those that came with a packet: they are ours to close, however many.
func descriptors(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		list, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // it is something else
		}
		for _, fd := range list {
			files = append(files, os.NewFile(uintptr(fd), "connection"))
		}
	}
	return files
}

// connection returns the TCP connection that a descriptor is, as another descriptor.
func connection(f *os.File) (*net.TCPConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		if _, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
			return tcp, nil
		}
	}
	c.Close()
	return nil, errors.New("what came is no TCP connection, or one that has ended")
}

// User returns the id of the user that a configuration names, by name or number.
func User(name string) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("no user %q on this machine: write the number of one that only a directory service knows", name)
	}
	return strconv.Atoi(u.Uid)
}
