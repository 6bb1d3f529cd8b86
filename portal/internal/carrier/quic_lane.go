package carrier

import (
	"errors"
	"fmt"
	"sync"

	"github.com/quic-go/quic-go"
)

// manySmall is after how many turns with little to send a bulk stream is no bulk
// stream any more.
const manySmall = 8

// quicLane is a Source's place among the QUIC streams. One goroutine at a time
// writes what the Source has: the caller of Write, or one of the carrier's that
// lives as long as there is anything.
type quicLane struct {
	c      *quicCarrier
	number uint32
	src    Source

	mu      sync.Mutex
	writing bool // somebody writes, or is about to
	again   bool // there may be more since
	closed  bool

	// The following belong to who set writing, and then to who closes.
	to      *quicStream // nil until the first frame
	stopped bool        // the peer wants no more of to
	bulk    bool
	small   int // turns in a row with little to send
}

// Lane implements Conn.
func (c *quicCarrier) Lane(stream uint32, src Source) Lane {
	return &quicLane{c: c, number: stream, src: src, to: c.claim(stream)}
}

// Urgent implements Lane.
func (l *quicLane) Urgent() { l.Ready() }

// Ready implements Lane.
func (l *quicLane) Ready() {
	if l.begin() {
		l.c.spawn(l.run)
	}
}

// Write implements Lane.
func (l *quicLane) Write() {
	if l.begin() && l.turn() {
		l.c.spawn(l.run)
	}
}

// Close implements Lane.
func (l *quicLane) Close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	idle := !l.writing
	l.mu.Unlock()
	if first && idle {
		l.leave()
	}
}

// begin reports whether the caller is to write.
func (l *quicLane) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.writing {
		l.again = true
		return false
	}
	l.writing = true
	l.c.busy.Add(1)
	return true
}

func (l *quicLane) run() {
	for l.turn() {
	}
}

// turn writes the Source's frames for one turn. It reports whether more waits;
// if not, it has given up the writing.
func (l *quicLane) turn() (more bool) {
	more = l.send()
	l.mu.Lock()
	more = (more || l.again) && !l.closed
	l.again = false
	l.writing = more
	leave := l.closed
	l.mu.Unlock()
	if !more {
		l.c.busy.Add(-1)
	}
	if leave {
		l.leave()
	}
	return more
}

func (l *quicLane) leave() {
	if l.to != nil {
		l.to.leave()
	}
}

func (l *quicLane) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed
}

// scratches holds buffers for small frames.
var scratches = sync.Pool{New: func() any { b := make([]byte, 0, 2*smallData); return &b }}

// send asks the Source once and writes what it has.
func (l *quicLane) send() (more bool) {
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	b := (*scratch)[:0]
	if !l.open() || !l.follow() {
		return false
	}
	b = l.src.Urgent(b)
	var frame []byte
	if l.open() {
		frame, more = l.src.Next()
	}
	l.rank(more || len(frame) > smallData)
	var err error
	if frame != nil && len(frame) <= smallData {
		b = append(b, frame...)
		frame = nil
		l.src.Wrote()
	}
	if len(b) > 0 {
		err = l.write(b)
	}
	if frame != nil {
		if err == nil {
			err = l.write(frame)
		}
		l.src.Wrote()
	}
	*scratch = b[:0]
	return more && err == nil
}

// follow goes over to another QUIC stream that the peer has opened for the same
// number: there the stream had left this carrier and has come back, of which the
// lane's side may not have heard in between. It reports whether there is a QUIC
// stream that the peer wants.
func (l *quicLane) follow() bool {
	if s := l.c.claim(l.number); s != nil {
		l.leave()
		l.to, l.stopped = s, false
		s.rank(l.bulk)
	}
	return !l.stopped
}

// write writes frames to the lane's QUIC stream, which is opened by the first.
func (l *quicLane) write(b []byte) (err error) {
	l.follow() // b may answer what has come on another since the turn began
	if l.to == nil {
		if l.to, err = l.c.openStream(l.number); err == nil {
			l.to.rank(l.bulk)
		}
	}
	if err == nil {
		l.c.live.used(len(b))
		_, err = l.to.qs.Write(b)
		l.c.live.used(len(b)) // it may have taken long
	}
	var stopped *quic.StreamError
	switch {
	case err == nil:
		l.c.stats.sent.Add(uint64(len(b)))
	case errors.As(err, &stopped):
		// The peer does not want the rest: the stream has left, and may come
		// back on another.
		l.stopped = true
	default:
		l.c.Abort(fmt.Errorf("write to the peer: %w", l.c.explain(err)))
	}
	return err
}

// rank puts a stream that sends in bulk behind the others, and back when it has
// sent little for a while.
func (l *quicLane) rank(bulk bool) {
	if bulk {
		l.small = 0
	} else if l.small++; l.bulk && l.small < manySmall {
		return
	}
	if l.bulk != bulk {
		l.bulk = bulk
		if l.to != nil {
			l.to.rank(bulk)
		}
	}
}

func (s *quicStream) rank(bulk bool) {
	if bulk {
		s.qs.SetPriority(urgencyBulk, true)
	} else {
		s.qs.SetPriority(urgencyFresh, true)
	}
}
