package carrier

import (
	"errors"
	"fmt"
	"io"

	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// smallFrame is up to how long a body is read into a buffer that the carrier
// keeps; a longer one gets a large buffer while it is handled.
const smallFrame = 512

// readBudget bounds the work that a peer can cause with tiny TLS records (each
// costs an AES-GCM call and a turn through crypto/tls, whatever it carries).
// An honest carrier writes whole frames, so it needs few records for a frame.
type readBudget struct{ excess int }

// maxExcess is how many records more than an honest peer needs may come in the
// life of a carrier.
const maxExcess = 4096

func (r *readBudget) frame(reads, length int) error {
	if r.excess += max(0, reads-4-length/4096); r.excess > maxExcess {
		return errors.New("the peer cuts its frames into too many records")
	}
	return nil
}

// read handles frames until the connection or the peer breaks.
func (c *tcpCarrier) read(h Handler) error {
	small := make([]byte, smallFrame)
	if !c.greeted {
		stop := c.hurry()
		m, err := c.firstFrame(small)
		stop()
		if err == nil {
			err = h.Hello(m)
		}
		if err != nil {
			return err
		}
	}
	for {
		f, reads, err := c.header()
		if err != nil {
			return err
		}
		err = c.body(f, small, reads, func(body []byte) error { return c.take(f, body, h) })
		if err != nil {
			return err
		}
	}
}

// exchange writes what waits and reads the peer's HELLO.
func (c *tcpCarrier) exchange() (wire.TunnelHello, error) {
	c.writer.flushFirst()
	return c.firstFrame(make([]byte, smallFrame))
}

// firstFrame reads the peer's HELLO.
func (c *tcpCarrier) firstFrame(small []byte) (m wire.TunnelHello, err error) {
	f, reads, err := c.header()
	if err != nil {
		return m, err
	}
	err = c.body(f, small, reads, func(body []byte) error {
		m, err = c.checkHello(f, body)
		return err
	})
	return m, err
}

// header reads a frame's header and tells in how many pieces it came.
func (c *tcpCarrier) header() (f wire.FrameHeader, reads int, err error) {
	reads, err = c.fill(c.head[:])
	if err == io.EOF {
		return f, reads, ErrClosed
	}
	if err != nil {
		return f, reads, fmt.Errorf("read a frame: %w", err)
	}
	f, err = wire.ParseFrameHeader(c.head[:])
	return f, reads, err
}

// body reads the body of a frame into a buffer that fits it, passes it on and
// counts the frame.
func (c *tcpCarrier) body(f wire.FrameHeader, small []byte, reads int, handle func([]byte) error) error {
	b := small
	switch {
	case f.Length <= len(small):
	case f.Length <= len(stream.Block{}):
		block := stream.GetBlock()
		defer stream.PutBlock(block)
		b = block[:]
	default:
		b = make([]byte, f.Length)
	}
	b = b[:f.Length]
	more, err := c.fill(b)
	if err != nil {
		return fmt.Errorf("read a %v frame: %w", f.Type, noEOF(err))
	}
	if err := c.reads.frame(reads+more, f.Length); err != nil {
		return err
	}
	if err := handle(b); err != nil {
		return err
	}
	c.counted(f)
	return nil
}

// fill reads all of b and tells in how many pieces it came. The error is io.EOF
// only if the connection ended before the first byte.
func (c *tcpCarrier) fill(b []byte) (reads int, err error) {
	for n := 0; n < len(b); reads++ {
		m, err := c.tls.Read(b[n:])
		n += m
		if err != nil && n < len(b) {
			if n > 0 {
				err = noEOF(err)
			}
			return reads, err
		}
	}
	return reads, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
