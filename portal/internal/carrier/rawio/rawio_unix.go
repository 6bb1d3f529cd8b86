//go:build unix

package rawio

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// ready is the state of one call of Read; it is kept in the Reader so that a
// call allocates nothing.
type ready struct {
	raw  syscall.RawConn // nil: the connection has no descriptor
	read func(fd uintptr) bool
	n    int
	err  error
	wait bool
}

func (r *Reader) init() {
	r.ready.raw = descriptor(r.conn)
	r.ready.read = r.attempt
}

// Read waits until the connection can be read, then takes the buffers and
// reads into them once. At the end the error is io.EOF. The buffers are the
// caller's to use or to Put, even after an error.
func (r *Reader) Read() (int, error) {
	if r.ready.raw == nil {
		return r.readHolding()
	}
	return r.run(true)
}

// TryRead is Read that does not wait: it returns 0 bytes and no error when
// there is nothing to read.
func (r *Reader) TryRead() (int, error) {
	if r.ready.raw == nil {
		return 0, nil
	}
	return r.run(false)
}

func (r *Reader) run(wait bool) (int, error) {
	s := &r.ready
	s.n, s.err, s.wait = 0, nil, wait
	if err := s.raw.Read(s.read); err != nil {
		return 0, err
	}
	return s.n, s.err
}

func (r *Reader) attempt(fd uintptr) bool {
	s := &r.ready
	for {
		s.n, s.err = read(int(fd), r.into.Get())
		switch {
		case s.err == syscall.EINTR:
			continue
		case s.err == syscall.EAGAIN:
			r.into.Put()
			s.n, s.err = 0, nil
			return !s.wait
		case s.err != nil:
			s.n, s.err = 0, os.NewSyscallError("read", s.err)
		case s.n == 0:
			s.err = io.EOF
		}
		return true
	}
}

// Writer writes to a connection as much as fits at once.
type Writer struct {
	raw   syscall.RawConn
	write func(fd uintptr) bool
	b     []byte
	n     int
	err   error
}

// NewWriter returns a Writer, or nil if conn cannot be written without
// waiting.
func NewWriter(conn net.Conn) *Writer {
	raw := descriptor(conn)
	if raw == nil {
		return nil
	}
	w := &Writer{raw: raw}
	w.write = w.attempt
	return w
}

// TryWrite writes what fits into the socket now and returns how much that was:
// less than len(b) without an error means that the socket is full. It must not
// run beside another call, nor beside a Write of the connection, for which it
// would wait.
func (w *Writer) TryWrite(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.raw.Write(w.write)
	w.b = nil
	return w.n, errors.Join(err, w.err)
}

func (w *Writer) attempt(fd uintptr) bool {
	for w.n < len(w.b) {
		n, err := syscall.Write(int(fd), w.b[w.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			w.err = os.NewSyscallError("write", err)
			return true
		}
		w.n += n
	}
	return true
}

// descriptor returns the raw connection of a stream socket. Other types may have one
// that leads past what they do to the bytes, so only those that are known are
// used.
func descriptor(conn net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}
