package carrier

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

const (
	// readAhead is how much an idle QUIC stream's reader keeps room for.
	readAhead = 512
	// maxLingering bounds the QUIC streams that are only read until the peer ends
	// them.
	maxLingering = 512
)

// Urgencies of QUIC streams (RFC 9218): lower comes first.
const (
	urgencyControl = 1
	urgencyFresh   = 2
	urgencyBulk    = 3
)

// frames reads frames from a QUIC stream.
type frames struct {
	from *quic.Stream
	held *atomic.Int64 // bytes of the buffers that frames of the carrier are read into
	buf  [readAhead]byte
	r, w int // what was read and not taken yet
}

// middles holds buffers for frames of middle size.
var middles = sync.Pool{New: func() any { return new([middleFrame]byte) }}

const (
	// middleFrame is up to how long a body is read into a smaller buffer than a
	// stream.Block: on a slow path most are.
	middleFrame = 8 << 10
	// maxHeld bounds the buffers of a carrier's frames of which the rest has not
	// come. A sender with many streams sends short frames (Turn).
	maxHeld = 64 << 20
)

var errHalfFrames = errors.New("too many frames are sent in part")

// buffer returns a buffer for a body of n bytes, and what gives it back.
func (f *frames) buffer(n int) (body []byte, release func(), err error) {
	size := n
	switch {
	case n <= middleFrame:
		b := middles.Get().(*[middleFrame]byte)
		size, body, release = len(b), b[:n], func() { middles.Put(b) }
	case n <= len(stream.Block{}):
		b := stream.GetBlock()
		size, body, release = len(b), b[:n], func() { stream.PutBlock(b) }
	default:
		body, release = make([]byte, n), func() {}
	}
	if f.held.Add(int64(size)) > maxHeld {
		err = errHalfFrames
	}
	put := release
	return body, func() {
		f.held.Add(-int64(size))
		put()
	}, err
}

// next reads a frame and passes it on. The error is io.EOF only if the stream
// ended before the frame's first byte.
func (f *frames) next(handle func(wire.FrameHeader, []byte) error) error {
	if err := f.have(wire.FrameHeaderLen); err != nil {
		return err
	}
	h, err := wire.ParseFrameHeader(f.buf[f.r:])
	if err != nil {
		return err
	}
	f.r += wire.FrameHeaderLen
	if h.Length <= len(f.buf) {
		if err := f.have(h.Length); err != nil {
			return fmt.Errorf("read a %v frame: %w", h.Type, noEOF(err))
		}
		body := f.buf[f.r : f.r+h.Length]
		f.r += h.Length
		return handle(h, body)
	}
	body, release, err := f.buffer(h.Length)
	defer release()
	if err != nil {
		return err
	}
	n := copy(body, f.buf[f.r:f.w])
	f.r += n
	if _, err := io.ReadFull(f.from, body[n:]); err != nil {
		return fmt.Errorf("read a %v frame: %w", h.Type, noEOF(err))
	}
	return handle(h, body)
}

// have reads until n bytes are in buf.
func (f *frames) have(n int) error {
	for f.w-f.r < n {
		f.w = copy(f.buf[:], f.buf[f.r:f.w])
		f.r = 0
		m, err := f.from.Read(f.buf[f.w:])
		f.w += m
		if err != nil && f.w < n {
			if f.w > 0 {
				err = noEOF(err)
			}
			return err
		}
	}
	return nil
}

// quicStream is a QUIC stream that carries the frames of one stream of the tunnel.
//
//	opened    by a lane, with its first frame   or by the peer: a lane may claim it
//	closed    when its lane is; from then on late frames are read until the peer's end
//	replaced  by another with the same number: the stream came back to this carrier
type quicStream struct {
	c      *quicCarrier
	qs     *quic.Stream
	in     frames
	number uint32 // 0 until the peer's first frame has named it

	// The carrier's lock guards the following.
	claimed bool // a lane writes to it, or none ever will
	left    bool // its lane is closed
	read    bool // the peer has ended it

	handling sync.Mutex // held while a frame is handled
	replaced bool       // frames mean nothing any more; handling guards it
}

// acceptStreams takes the QUIC streams that the peer opens.
func (c *quicCarrier) acceptStreams() {
	for {
		qs, err := c.conn.AcceptStream(c.conn.Context())
		if err != nil {
			c.Abort(c.explain(err))
			return
		}
		s := &quicStream{c: c, qs: qs, in: frames{from: qs, held: &c.held}}
		c.spawn(s.serve)
	}
}

// openStream opens a QUIC stream for a lane. It waits while the peer has as many
// as it takes.
func (c *quicCarrier) openStream(number uint32) (*quicStream, error) {
	qs, err := c.conn.OpenStreamSync(c.conn.Context())
	if err != nil {
		return nil, err
	}
	s := &quicStream{c: c, qs: qs, in: frames{from: qs, held: &c.held}, number: number, claimed: true}
	c.bind(s)
	c.spawn(s.serve)
	return s, nil
}

// bind makes s the QUIC stream of its number.
func (c *quicCarrier) bind(s *quicStream) {
	c.mu.Lock()
	old := c.streams[s.number]
	c.streams[s.number] = s
	c.mu.Unlock()
	if old != nil {
		old.handling.Lock()
		old.replaced = true
		old.handling.Unlock()
		old.qs.CancelRead(0)
	}
}

// claim returns the QUIC stream that the peer has opened for a number and no lane
// writes to, or nil.
func (c *quicCarrier) claim(number uint32) *quicStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[number]
	if s == nil || s.claimed {
		return nil
	}
	s.claimed = true
	return s
}

// lockStream keeps the frames of a stream's own QUIC stream from being handled
// until the returned function is called.
func (c *quicCarrier) lockStream(number uint32) (unlock func()) {
	c.mu.Lock()
	s := c.streams[number]
	c.mu.Unlock()
	if s == nil {
		return func() {}
	}
	s.handling.Lock()
	return s.handling.Unlock
}

// serve handles what the peer sends on the stream, until it ends it.
func (s *quicStream) serve() {
	c := s.c
	select {
	case <-c.joined:
	case <-c.live.ended:
		return
	}
	var err error
	for err == nil {
		err = s.in.next(s.frame)
	}
	var cut *quic.StreamError
	switch {
	case err == io.EOF:
	case errors.As(err, &cut) && !cut.Remote: // it was replaced, or lingered
	default:
		c.Abort(fmt.Errorf("read stream %d: %w", s.number, c.explain(err)))
		return
	}
	if s.ended() {
		_ = s.qs.Close()
	}
}

func (s *quicStream) frame(f wire.FrameHeader, body []byte) error {
	switch {
	case s.number == 0 && f.Stream != 0 && (f.Type == wire.FrameOpen || f.Type == wire.FrameResume):
		s.number = f.Stream
		s.c.bind(s)
	case s.number == 0 || f.Stream != s.number || f.Type == wire.FrameDatagram:
		return fmt.Errorf("%w: %v of stream %d", wire.ErrMalformed, f.Type, f.Stream)
	}
	s.handling.Lock()
	defer s.handling.Unlock()
	if s.replaced {
		return nil
	}
	return s.c.handle(f, body)
}

// ended notes that the peer has ended the stream. It reports whether no lane will
// ever do so on this side.
func (s *quicStream) ended() (alone bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	alone = !s.claimed
	s.claimed, s.read = true, true
	if s.left {
		c.lingers--
	}
	if alone || s.left {
		c.forgetLocked(s)
	}
	return alone
}

// leave ends the stream on this side: its lane is closed.
func (s *quicStream) leave() {
	_ = s.qs.Close()
	c := s.c
	c.mu.Lock()
	s.left = true
	many := false
	if s.read {
		c.forgetLocked(s)
	} else {
		c.lingers++
		many = c.lingers > maxLingering
	}
	c.mu.Unlock()
	if many {
		s.qs.CancelRead(0)
	}
}

func (c *quicCarrier) forgetLocked(s *quicStream) {
	if c.streams[s.number] == s {
		delete(c.streams, s.number)
	}
}
