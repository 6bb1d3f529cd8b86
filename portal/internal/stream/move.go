package stream

import (
	"bytes"

	"github.com/netport/netport/proto/wire"
)

// A stream moves from carrier to carrier in epochs, which its opener counts:
//
//	opener                                     other side
//	Leave the old carrier, Move
//	  (sends and takes nothing)  -- RESUME -->  Leave, Follow
//	Moved                       <-- RESUME --
//	both: send on from what the other has received, and an ACK at once
//
// What was under way on the old carrier is of an older epoch and means nothing
// when it arrives. Each side told what it has received when it had
// begun to ignore that: so what the other then sends is what is missing, no less
// and no more. A segment is sent whole in every epoch, so that what is missing
// begins at a segment's edge.

// Loan is a frame that an old carrier still reads after its stream has left. The
// zero Loan is none.
type Loan struct {
	block *Block
	cost  int
}

// Cost is how much memory the frame takes.
func (l Loan) Cost() int { return l.cost }

// Return tells that the carrier is done with the frame.
func (l Loan) Return() {
	if l.block != nil {
		PutBlock(l.block)
	}
}

// Leave ends the stream's use of its carrier. If that has not called Wrote for
// a frame, it may go on reading it until the Loan is returned, in place
// of Wrote; the stream has bytes of its own by then.
func (s *Stream) Leave() Loan {
	h := &s.send
	if h.sent == h.wrote { // or it was a FIN, which is never used again
		return Loan{}
	}
	seg := &h.kept[h.next-1]
	loan := Loan{block: seg.block, cost: seg.cost()}
	h.wrote = h.sent
	if h.dropped {
		h.keptBytes -= seg.cost()
		h.kept, h.next = nil, 0
		return loan
	}
	if seg.block != nil {
		b := GetBlock()
		seg.frame = b[:copy(b[:], seg.frame)]
		seg.block = b
	} else {
		seg.frame = bytes.Clone(seg.frame)
	}
	h.forget()
	return loan
}

// Epoch is the attach epoch, from 1.
func (s *Stream) Epoch() uint32 { return s.epoch }

// Moving reports whether the peer's answer to a RESUME is awaited.
func (s *Stream) Moving() bool { return s.moving }

// Move begins a further epoch on the opener's side and returns the RESUME that
// says so on the new carrier. Until the answer comes (Moved) there is nothing
// else to send but a RESET. The stream has left its carrier before.
func (s *Stream) Move() wire.Resume {
	s.epoch++
	s.moving = true
	return wire.Resume{Epoch: s.epoch, Received: s.receive.count()}
}

// Moved takes the peer's answer to Move. It reports whether it counts: one of an
// older epoch does not.
func (s *Stream) Moved(m wire.Resume) (bool, error) {
	switch {
	case m.Epoch < s.epoch:
		return false, nil
	case m.Epoch > s.epoch || !s.moving:
		return false, violation("RESUME of epoch %d, which was not asked for", m.Epoch)
	}
	s.moving = false
	return true, s.resume(m.Received, true)
}

// Follow takes the opener's RESUME and returns the answer, which is to be sent
// on the carrier that it came by, before anything else. It reports whether the
// RESUME counts: one of an older epoch does not. The stream has left its
// carrier before.
func (s *Stream) Follow(m wire.Resume) (answer wire.Resume, ok bool, err error) {
	switch {
	case m.Epoch < s.epoch:
		return wire.Resume{}, false, nil
	case m.Epoch == s.epoch:
		return wire.Resume{}, false, violation("RESUME of epoch %d twice", m.Epoch)
	case s.resetReceived:
		return wire.Resume{}, false, violation("RESUME after RESET")
	}
	s.epoch = m.Epoch
	if err := s.resume(m.Received, s.receive.stands); err != nil {
		return wire.Resume{}, false, err
	}
	return wire.Resume{Epoch: s.epoch, Received: s.receive.count()}, true, nil
}

// resume begins an epoch: the peer has received so much. What was said on the
// old carrier may be lost, so an ACK is due if ack is true.
func (s *Stream) resume(received uint64, ack bool) error {
	r := &s.receive
	r.ackForced = ack
	r.finAckSent = false
	r.grow = growth{} // the way is another
	return s.send.rewind(received)
}

// Nudge is an ACK that says nothing new. On another carrier than the stream's
// it asks the opener to move the stream there, or to say that it has
// forgotten it.
func (s *Stream) Nudge() wire.Ack {
	return wire.Ack{Epoch: s.epoch, Acked: s.receive.ackedAt, Limit: s.receive.limit}
}

// Forgotten takes the peer's word that it knows the stream no more. It reports
// whether that is a clean end, at which only the peer's last ACK was missing; if
// not, the stream was cut short.
func (s *Stream) Forgotten() bool {
	h := &s.send
	if s.reset || !h.finSent || !s.receive.finAckEver {
		return false
	}
	s.moving = false
	s.receive.finAckSent = true
	h.finAcked = true
	h.acked = h.end + 1
	h.forget()
	return true
}

// ResetAgain reports whether a RESET of this side waits for the peer's answer, or
// has not been sent: on a new carrier it is to be sent again.
func (s *Stream) ResetAgain() bool {
	if !s.reset || s.resetReceived {
		return false
	}
	s.resetSent = true
	return true
}

// count is what was received, with the FIN, which counts one.
func (h *receiveHalf) count() uint64 {
	if h.fin {
		return h.received + 1
	}
	return h.received
}

// rewind has everything sent again that the peer has not received.
func (h *sendHalf) rewind(received uint64) error {
	last := h.sent
	if h.finSent {
		last++
	}
	switch {
	case received > last:
		return violation("RESUME from offset %d, only %d were sent", received, last)
	case received < max(h.acked, h.floor):
		return violation("RESUME went back to %d, %d were received", received, max(h.acked, h.floor))
	}
	h.floor = received
	if h.dropped {
		return nil
	}
	h.finSent = received > h.end
	at := min(received, h.end)
	n := 0
	for n < len(h.kept) && h.kept[n].end <= at {
		n++
	}
	if n < len(h.kept) && h.kept[n].start() < at {
		return violation("RESUME from offset %d, in the middle of a frame", received)
	}
	h.next, h.sent, h.wrote = n, at, at
	return nil
}
