package carrier

import (
	"sync/atomic"
	"time"
)

// crowd is how soon after another stream's write a stream leaves its own to
// the writer's goroutine, which writes the frames of all at once.
const crowd = time.Millisecond

// tcpLane is a Source's place in the writer's turns.
type tcpLane struct {
	w   *writer
	src Source

	// The following belong to the writer's lock.
	queued bool // in fresh or bulk
	urgent bool // in urgent
	bulk   bool // its last turn was a large frame, or had another behind it

	closed atomic.Bool // set once
}

// Lane implements Conn.
func (c *tcpCarrier) Lane(_ uint32, src Source) Lane { return &tcpLane{w: &c.writer, src: src} }

// Urgent implements Lane.
func (l *tcpLane) Urgent() {
	w := l.w
	w.mu.Lock()
	if !l.urgent && !l.closed.Load() {
		l.urgent = true
		w.urgent = append(w.urgent, l)
	}
	w.startLocked()
}

// Ready implements Lane.
func (l *tcpLane) Ready() {
	l.w.mu.Lock()
	l.w.queueLocked(l)
	l.w.startLocked()
}

// Write implements Lane.
func (l *tcpLane) Write() {
	w := l.w
	w.mu.Lock()
	w.queueLocked(l)
	now := time.Now()
	crowded := w.last != l && now.Sub(w.lastAt) < crowd
	w.last, w.lastAt = l, now
	if crowded {
		w.startLocked()
		return
	}
	w.writeLocked()
}

// Close implements Lane. The lane stays in its queue, but is passed over there.
func (l *tcpLane) Close() { l.closed.Store(true) }
