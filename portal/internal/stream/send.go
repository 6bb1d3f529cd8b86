package stream

import "github.com/netport/netport/proto/wire"

// sendHalf is what goes to the peer. Offsets rise from left to right:
//
//	acked <= wrote <= sent <= end <= limit
//
// Segments up to wrote were encrypted, so their buffers may be used again once
// they are acknowledged. Those from wrote to sent are in the hands of the
// carrier: an ACK for them may come before the carrier says that it is done
// with the buffer, and releases nothing until then.
type sendHalf struct {
	kept      []segment // those before next were sent
	next      int
	keptBytes int

	acked uint64
	wrote uint64
	sent  uint64
	end   uint64
	limit uint64 // what the peer takes
	floor uint64 // what the peer has received, as its last RESUME told it

	fin      bool // the application has ended its half
	finSent  bool
	finAcked bool
	dropped  bool
}

// Room is how many bytes the peer would take now. The owner reads no more than
// that from its application, so that what it has read can always be sent. A
// little room counts as none while an ACK is to come that makes it more, lest
// a bulk stream is cut into crumbs (the silly window of RFC 1122, 4.2.3.4).
func (s *Stream) Room() int {
	h := &s.send
	top := min(h.limit, h.acked+MaxWindow)
	if h.fin || h.dropped || len(h.kept) >= maxKept || top <= h.end {
		return 0
	}
	room := top - h.end
	if h.acked < h.end && room < min(copyBelow, (top-h.acked)/4) {
		return 0
	}
	return int(room)
}

// Kept is how much memory the bytes take that the peer has not acknowledged.
func (s *Stream) Kept() int { return s.send.keptBytes }

// Append adds n bytes that the owner has read into b, at most Room. It reports
// whether the stream keeps b; else the owner may go on using it.
func (s *Stream) Append(b *Block, n int) (kept bool) {
	h := &s.send
	if n == 0 || h.fin || h.dropped {
		return false
	}
	seg := segment{frame: b[:wire.DataOverhead+n], block: b}
	if n <= copyBelow {
		seg = segment{frame: append(make([]byte, 0, wire.DataOverhead+n), seg.frame...)}
	}
	seg.end = h.end + uint64(n)
	h.kept = append(h.kept, seg)
	h.end = seg.end
	h.keptBytes += seg.cost()
	return seg.block != nil
}

// Finish ends the sending half: the FIN follows the last byte.
func (s *Stream) Finish() { s.send.fin = true }

// Pending reports whether Next has a frame.
func (s *Stream) Pending() bool {
	h := &s.send
	return !s.moving && !h.dropped && (h.next < len(h.kept) || h.fin && !h.finSent)
}

// Next returns the next DATA or FIN frame, whole, or nil. The frame stays the
// stream's: the carrier must be done with it when it calls Wrote, and takes no
// other frame of this stream before.
func (s *Stream) Next() []byte {
	h := &s.send
	switch {
	case h.dropped || s.moving:
	case h.next < len(h.kept):
		seg := &h.kept[h.next]
		h.next++
		wire.PutDataHeader(seg.frame, s.id, s.epoch, h.sent, len(seg.frame)-wire.DataOverhead)
		h.sent = seg.end
		return seg.frame
	case h.fin && !h.finSent:
		h.finSent = true
		return wire.AppendFrame(nil, s.id, wire.Fin{Epoch: s.epoch, Offset: h.end})
	}
	return nil
}

// Wrote tells that the carrier is done with the frame that Next returned.
func (s *Stream) Wrote() {
	h := &s.send
	h.wrote = h.sent
	if h.dropped {
		h.release(h.next)
		return
	}
	h.forget()
}

// ReceiveAck takes the peer's ACK: buffers are released, and Room may grow.
func (s *Stream) ReceiveAck(a wire.Ack) error {
	if ignore, err := s.other(a.Epoch); ignore || err != nil {
		return err
	}
	h := &s.send
	last := h.sent
	if h.finSent {
		last++
	}
	switch {
	case a.Acked > last:
		return violation("ACK of offset %d, only %d were sent", a.Acked, last)
	case a.Acked < h.acked || a.Limit < h.limit:
		return violation("ACK went back to %d, limit %d, from %d, limit %d", a.Acked, a.Limit, h.acked, h.limit)
	}
	h.limit = a.Limit
	h.acked = a.Acked
	h.finAcked = h.finSent && a.Acked == h.end+1
	if !h.dropped {
		h.forget()
	}
	return nil
}

// Acked is how many bytes the far application's socket has.
func (s *Stream) Acked() uint64 { return min(s.send.acked, s.send.end) }

// forget releases the segments that are acknowledged and no longer in the
// carrier's hands.
func (h *sendHalf) forget() {
	n := 0
	for n < h.next && h.kept[n].end <= min(h.acked, h.wrote) {
		n++
	}
	h.release(n)
}

func (h *sendHalf) release(n int) {
	for i := range n {
		h.keptBytes -= h.kept[i].cost()
		h.kept[i].release()
	}
	rest := copy(h.kept, h.kept[n:])
	clear(h.kept[rest:])
	h.kept = h.kept[:rest]
	h.next -= n
}

// drop forgets all segments but the one that the carrier may be reading, which
// Wrote releases.
func (h *sendHalf) drop() {
	if h.dropped {
		return
	}
	h.dropped = true
	busy := 0
	// FIN has no segment: then the carrier reads none of these.
	if h.sent > h.wrote {
		busy = 1
		h.kept[0], h.kept[h.next-1] = h.kept[h.next-1], h.kept[0]
	}
	for i := range h.kept[busy:] {
		h.kept[busy+i].release()
	}
	clear(h.kept[busy:])
	h.kept = h.kept[:busy]
	h.next = busy
}
