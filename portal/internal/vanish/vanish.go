// Package vanish finds connections of applications whose other side has
// vanished while data was on its way to it. TCP's keepalive asks only where
// nothing is on its way; there the system would go on sending for a quarter of an
// hour. (TCP_USER_TIMEOUT is no help: it also ends the connection of an
// application that does not read for a while, and that is none of our business.)
package vanish

import (
	"net"
	"sync"
	"time"
)

const (
	// stuckTime is how long nothing may be answered. With sweepEvery it makes
	// about the 2 minutes of the keepalive.
	stuckTime  = 110 * time.Second
	sweepEvery = 10 * time.Second
)

// Watch looks after connections until they are closed. Its methods are safe for
// concurrent use.
type Watch struct {
	limit, every time.Duration
	look         func(*net.TCPConn) (state, bool)

	mu    sync.Mutex                 // guards the following
	conns map[*net.TCPConn]time.Time // since when it is waiting for its peer; zero: it is not
	timer *time.Timer                // nil: there are no conns
}

// state is what the system knows of a connection.
type state struct {
	waiting bool          // what was sent, or a probe of a full window, was sent again in vain
	heard   time.Duration // how long ago the peer has acknowledged anything
}

// New returns a Watch.
func New() *Watch {
	return &Watch{limit: stuckTime, every: sweepEvery, look: look, conns: make(map[*net.TCPConn]time.Time)}
}

// Add has w look after a connection. One whose peer does not answer for about 2
// minutes though there is something to acknowledge is made to fail: reading and
// writing report os.ErrDeadlineExceeded.
func (w *Watch) Add(conn *net.TCPConn) {
	if !supported {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[conn] = time.Time{}
	if w.timer == nil {
		w.timer = time.AfterFunc(w.every, w.sweep)
	}
}

// sweep looks at every connection.
func (w *Watch) sweep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for conn, since := range w.conns {
		s, open := w.look(conn)
		switch {
		case !open:
			delete(w.conns, conn)
		case !s.waiting:
			w.conns[conn] = time.Time{}
		case since.IsZero() || s.heard < now.Sub(since):
			w.conns[conn] = now
		case now.Sub(since) >= w.limit:
			conn.SetDeadline(time.Unix(1, 0))
			delete(w.conns, conn)
		}
	}
	if len(w.conns) == 0 {
		w.timer = nil
		return
	}
	w.timer.Reset(w.every)
}
