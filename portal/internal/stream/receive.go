package stream

import (
	"time"

	"github.com/netport/netport/proto/wire"
)

// receiveHalf is what comes from the peer. Offsets rise from left to right:
//
//	written <= received <= limit
//
// The bytes from written to received stand in the queue, save those that the
// owner holds in its hands between Receive and Queue or WroteOut.
type receiveHalf struct {
	written  uint64
	received uint64
	limit    uint64 // told to the peer; never falls
	window   uint64
	queue    []chunk
	grow     growth

	ackedAt    uint64 // written, as the last ACK told it
	frames     int    // DATA frames since the last ACK
	stands     bool   // the stream was accepted here
	accepted   bool   // and the peer waits for the ACK that says so
	ackForced  bool   // an ACK is due, whatever it says
	fin        bool
	finDone    bool // the application was told of the end
	finAckSent bool // in this epoch
	finAckEver bool // in any
	dropped    bool
}

// chunk is a piece of the queue: the bytes of b from r on.
type chunk struct {
	b     []byte
	r     int
	block *Block // that b is part of, or nil
}

// Receive checks the place of a DATA frame and counts its bytes. It reports
// whether they are to be delivered: written out at once or passed to Queue. A
// frame of another epoch is ignored, as is one of a stream that was reset.
func (s *Stream) Receive(d wire.Data) (deliver bool, err error) {
	h := &s.receive
	n := uint64(len(d.Data))
	if ignore, err := s.other(d.Epoch); ignore || err != nil {
		return false, err
	}
	switch {
	case s.resetReceived:
		return false, violation("DATA after RESET")
	case h.fin:
		return false, violation("DATA after FIN")
	case d.Offset != h.received:
		return false, violation("DATA at offset %d, expected at %d", d.Offset, h.received)
	case n > h.limit-h.received:
		return false, violation("DATA up to %d, beyond the limit of %d", d.Offset+n, h.limit)
	}
	h.received += n
	h.frames++
	return !h.dropped, nil
}

// ReceiveFin takes the peer's FIN. It reports whether it counts.
func (s *Stream) ReceiveFin(f wire.Fin) (bool, error) {
	h := &s.receive
	if ignore, err := s.other(f.Epoch); ignore || err != nil {
		return false, err
	}
	switch {
	case s.resetReceived:
		return false, violation("FIN after RESET")
	case h.fin:
		return false, violation("FIN twice")
	case f.Offset != h.received:
		return false, violation("FIN at offset %d, %d were received", f.Offset, h.received)
	}
	h.fin = true
	return !h.dropped, nil
}

// Queued reports whether bytes wait in the queue: then new ones must pass
// through it too.
func (s *Stream) Queued() bool { return len(s.receive.queue) > 0 }

// Queue keeps bytes that could not be written out at once. It copies them.
func (s *Stream) Queue(p []byte) {
	h := &s.receive
	if h.dropped {
		return
	}
	if n := len(h.queue); n > 0 {
		// Small frames share a chunk; a slow application would else cost a
		// chunk for each byte.
		last := &h.queue[n-1]
		fits := min(len(p), cap(last.b)-len(last.b))
		last.b = append(last.b, p[:fits]...)
		p = p[fits:]
	}
	if len(p) == 0 {
		return
	}
	var c chunk
	if len(p) > copyBelow || len(h.queue) > 0 {
		c.block = GetBlock()
		c.b = append(c.block[:0], p...)
	} else {
		c.b = append([]byte(nil), p...)
	}
	h.queue = append(h.queue, c)
}

// Front returns the first bytes of the queue, nil if there are none. They stay
// as they are until WroteOut or Reset, whatever is queued meanwhile.
func (s *Stream) Front() []byte {
	h := &s.receive
	if len(h.queue) == 0 {
		return nil
	}
	return h.queue[0].b[h.queue[0].r:]
}

// WroteQueued tells that n bytes of Front were written out.
func (s *Stream) WroteQueued(n int, now time.Time, rtt time.Duration) {
	h := &s.receive
	if h.dropped {
		return
	}
	first := &h.queue[0]
	first.r += n
	if first.r == len(first.b) {
		if first.block != nil {
			PutBlock(first.block)
		}
		rest := copy(h.queue, h.queue[1:])
		h.queue[rest] = chunk{}
		h.queue = h.queue[:rest]
	}
	s.WroteOut(n, now, rtt)
}

// WroteOut tells that n bytes were written to the application.
func (s *Stream) WroteOut(n int, now time.Time, rtt time.Duration) {
	h := &s.receive
	h.written += uint64(n)
	h.grow.wrote(h.written, h.window, now, rtt)
}

// Ended reports whether the peer's FIN came and every byte before it was
// written out: the application is to be told of the end, then ToldEnd called.
func (s *Stream) Ended() bool {
	h := &s.receive
	return h.fin && h.written == h.received && !h.finDone && !h.dropped
}

// ToldEnd tells that the application was told of the end.
func (s *Stream) ToldEnd() { s.receive.finDone = true }

// Accept tells that the connection to the application stands: an ACK that says
// so is due, and the window counts from now on.
func (s *Stream) Accept(window uint64) {
	s.receive.stands = true
	s.receive.accepted = true
	s.receive.window = window
}

// AckDue reports whether the peer should get an ACK now: a quarter of the window
// is free again, or many small frames came.
func (s *Stream) AckDue() bool {
	h := &s.receive
	switch {
	case h.dropped || h.finAckSent || s.moving:
		return false
	case h.ackForced:
		return true
	case h.frames >= ackFrames && h.written > h.ackedAt:
		return true
	}
	return !h.fin && h.written-h.ackedAt >= min(minAck, h.window/4) && h.written+h.window >= h.limit+max(h.window/4, 1)
}

// AckOwed reports whether there is anything that the peer has not been told of:
// the stream was accepted, bytes were written out, or the end was told. An ACK
// that is not due can wait for some time.
func (s *Stream) AckOwed() bool {
	h := &s.receive
	return !h.dropped && !h.finAckSent && !s.moving && (h.accepted || h.finDone || h.written > h.ackedAt || s.AckDue())
}

// Ack returns the ACK to send now.
func (s *Stream) Ack() wire.Ack {
	h := &s.receive
	h.accepted, h.ackForced = false, false
	h.frames = 0
	h.ackedAt = h.written
	if !h.fin {
		h.limit = max(h.limit, min(h.written+h.window, wire.MaxOffset))
	}
	a := wire.Ack{Epoch: s.epoch, Acked: h.written, Limit: h.limit}
	if h.finDone {
		h.finAckSent, h.finAckEver = true, true
		a.Acked++
		a.Limit = max(a.Limit, a.Acked)
	}
	return a
}

// drop forgets the queue. Its blocks do not go back to the pool: the owner may
// be writing from one just now.
func (h *receiveHalf) drop() {
	h.dropped = true
	h.queue = nil
}

// Written is how many bytes the application here has taken.
func (s *Stream) Written() uint64 { return s.receive.written }
