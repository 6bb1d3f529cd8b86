package splice

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// copySize is the buffer of one direction that goes through user space: four
// TLS records.
const copySize = 64 << 10

// pump moves the bytes of one direction from socket to socket with splice(2),
// so that none of them is copied through user space. It is owned by the one
// goroutine that runs it.
type pump struct {
	src, dst syscall.RawConn
	pipes    *pipes
	moved    func(n int)

	pipe pipe  // holds left bytes
	left int   // in the pipe; 0: no pipe is held
	err  error // of the system call that ended a wait
}

// spliceAll moves all bytes of src to dst until the end of src, and calls moved
// with every count of bytes that dst has taken. nil is the clean end.
func spliceAll(dst, src *net.TCPConn, pipes *pipes, moved func(n int)) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	m := &pump{src: from, dst: to, pipes: pipes, moved: moved}
	fill, drain := m.fill, m.drain
	for {
		if err := m.src.Read(fill); err != nil {
			return err
		}
		if m.err != nil || m.left == 0 {
			return m.err
		}
		err := m.dst.Write(drain)
		if err == nil {
			err = m.err
		}
		if err != nil {
			m.pipe.close() // it is not empty
			return err
		}
		m.pipes.put(m.pipe)
	}
}

// fill takes what src has into a pipe. It reports false when src has nothing
// yet, and then holds no pipe.
func (m *pump) fill(fd uintptr) bool {
	p, err := m.pipes.get()
	if err != nil {
		m.err = err
		return true
	}
	n, err := splice(int(fd), p.w, pipeSize)
	if n > 0 {
		m.pipe, m.left = p, n
		return true
	}
	m.pipes.put(p)
	if err == unix.EAGAIN {
		return false
	}
	m.err = err
	return true
}

// drain empties the pipe into dst. It reports false when dst takes no more yet.
func (m *pump) drain(fd uintptr) bool {
	for m.left > 0 {
		n, err := splice(m.pipe.r, int(fd), m.left)
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			m.err = err
			return true
		}
		m.left -= n
		m.moved(n)
	}
	return true
}

func splice(from, to, limit int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, limit, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(max(n, 0)), err
		}
	}
}

// awaitReset waits on a socket that has been read to its end, and reports
// whether the peer then resets it. It returns false when the socket is closed.
func awaitReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return err != nil || code != 0
	})
	return err == nil
}

// copyAll is spliceAll where one side is inside TLS: through user space.
func copyAll(dst io.Writer, src io.Reader, moved func(n int)) error {
	buf := make([]byte, copySize)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
			moved(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
