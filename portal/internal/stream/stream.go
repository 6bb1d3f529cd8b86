package stream

import (
	"errors"
	"fmt"
)

const (
	// InitialWindow is how much each side may send once the stream was
	// accepted.
	InitialWindow = 256 << 10
	// MaxWindow is the most that one half ever has under way.
	MaxWindow = 16 << 20
	// SmallWindow is the window while memory is short.
	SmallWindow = 64 << 10
	// maxKept bounds the segments kept, whatever their size: an application
	// that writes byte by byte would else fill the memory with headers.
	maxKept = 4096
	// ackFrames is after how many DATA frames an ACK is due however little
	// they carried; it keeps the peer below maxKept.
	ackFrames = 256
	// minAck is how much must have been written out before an ACK is due for
	// the window's sake.
	minAck = 16 << 10
)

// ErrProtocol is what every error of a peer's making wraps: the peer broke the
// rules of the stream, and the carrier it came on should be closed.
var ErrProtocol = errors.New("the peer broke the stream's rules")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Stream is both halves of one connection.
type Stream struct {
	send    sendHalf
	receive receiveHalf

	id     uint32
	epoch  uint32
	moving bool // the opener awaits the answer to its RESUME
	reset  bool // both halves were ended at once
	// What was said and heard of RESET.
	resetSent, resetReceived bool
}

// New returns a stream that is attached for the first time. limit is up to
// where it may send before the first ACK, window how much it takes.
func New(id uint32, limit, window uint64) *Stream {
	s := &Stream{id: id, epoch: 1}
	s.send.limit = limit
	s.receive.window = window
	s.receive.limit = window
	return s
}

// other reports whether a frame of that epoch is to be ignored, being of a
// carrier that the stream has left.
func (s *Stream) other(epoch uint32) (bool, error) {
	switch {
	case epoch < s.epoch:
		return true, nil
	case epoch > s.epoch || s.moving:
		return false, violation("a frame of epoch %d before its RESUME", epoch)
	}
	return false, nil
}

// Limit is up to which offset the peer may send, as it was last told.
func (s *Stream) Limit() uint64 { return s.receive.limit }

// Held is how many bytes the stream holds, has promised to take, or will promise
// with its next ACK.
func (s *Stream) Held() int64 {
	if s.reset {
		return 0
	}
	r := &s.receive
	promised := max(r.limit, r.written+r.window)
	if r.fin {
		promised = r.received
	}
	return int64(s.send.keptBytes) + int64(promised-r.written)
}

// Reset ends both halves at once and forgets all bytes. It reports whether a
// RESET is to be sent: not if one was sent before, and not if the peer may have
// forgotten the stream already, because both FINs went out and its own was
// acknowledged. Then it has every byte, and the stream is over with its last
// ACK.
func (s *Stream) Reset() bool {
	s.send.drop()
	s.receive.drop()
	s.reset = true
	forgotten := s.send.finSent && s.receive.finAckEver && !s.resetReceived
	if s.resetSent || forgotten {
		return false
	}
	s.resetSent = true
	return true
}

// ReceiveReset takes the peer's RESET and forgets all bytes. It reports
// whether the peer waits for a RESET in answer.
func (s *Stream) ReceiveReset() bool {
	s.resetReceived = true
	return s.Reset()
}

// WasReset reports whether either side has reset the stream.
func (s *Stream) WasReset() bool { return s.reset }

// Over reports whether no more frames of the stream will come and none is to
// be sent, so that its owner may forget it.
func (s *Stream) Over() bool {
	if s.resetReceived {
		return s.resetSent
	}
	return s.send.finAcked && s.receive.finAckSent
}
