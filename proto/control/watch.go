package control

import (
	"fmt"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxLate is how late a timer may come. One that is later means that this
	// process, or its machine, stood still: the peer may have answered.
	maxLate = time.Second
	// exchange is how far the last words of an exchange may lie apart: a Ping
	// and its Pong are one end of a silence.
	exchange = 5 * time.Second
)

// watch keeps the connection alive and notices when it is not. It is a timer and no
// goroutine. The Conn's mutex guards it.
type watch struct {
	timer   *time.Timer // nil before Run
	probed  bool        // before Run
	waiting bool        // for any message after a Ping
	before  uint64      // messages received when it was sent
	due     time.Time   // when the wait is over
	// silence is how long nothing had gone, in both directions, when the Ping was sent
	// that waits for an answer; 0: none waits.
	silence time.Duration
}

// watchLocked begins to watch.
func (c *Conn[In, Out]) watchLocked() {
	if c.closed {
		return
	}
	c.watch.timer = time.AfterFunc(c.pause(), c.look)
	if c.watch.probed {
		c.askLocked(ProbeTimeout, 0)
	}
}

// Probe asks the peer for a sign of life within ProbeTimeout; if none comes,
// the connection ends.
func (c *Conn[In, Out]) Probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.watch
	switch {
	case c.closed:
	case w.timer == nil:
		w.probed = true
	case !w.waiting || c.received.Load() != w.before:
		c.askLocked(ProbeTimeout, 0)
	case time.Until(w.due) > ProbeTimeout:
		w.due = time.Now().Add(ProbeTimeout)
		w.timer.Reset(ProbeTimeout)
	}
}

func (c *Conn[In, Out]) askLocked(wait, silence time.Duration) {
	w := &c.watch
	w.waiting, w.before, w.due, w.silence = true, c.received.Load(), time.Now().Add(wait), silence
	w.timer.Reset(wait)
	c.enqueueLocked(wire.Ping{Token: uint64(w.due.UnixNano())})
}

// look is called when the timer ends.
func (c *Conn[In, Out]) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	w := &c.watch
	pause := c.pause()
	silence := time.Since(c.made) - time.Duration(c.heard.Load())
	answered := c.received.Load() != w.before
	switch {
	case w.waiting && !answered && time.Until(w.due) > 0: // it was put off meanwhile
	case w.waiting && !answered && time.Since(w.due) > maxLate:
		c.askLocked(ProbeTimeout, 0)
	case w.waiting && !answered:
		c.endLocked(fmt.Errorf("no answer from %s to a ping", c.peer.ID))
	case silence >= pause:
		c.askLocked(PongTimeout, c.silent(pause, silence))
	default:
		w.waiting = false
		w.timer.Reset(pause - silence)
	}
}

// pause is the silence after which the peer is to be asked.
func (c *Conn[In, Out]) pause() time.Duration {
	if c.pauses == nil {
		return c.quiet
	}
	return c.pauses.next(time.Now())
}

// silent returns the pause if nothing has gone either way for as long, and not
// for much longer: what happens to the connection then tells about the network.
func (c *Conn[In, Out]) silent(pause, silence time.Duration) time.Duration {
	spoken := time.Since(c.made) - time.Duration(c.wrote.Load())
	if spoken < pause-exchange || silence > pause+PongTimeout {
		return 0
	}
	return pause
}

// answered takes that the peer lives.
func (c *Conn[In, Out]) answered() {
	c.mu.Lock()
	silence := c.watch.silence
	c.watch.silence = 0
	c.mu.Unlock()
	if silence > 0 && c.pauses != nil {
		c.pauses.held(silence)
	}
}

// suspect returns the silence after which the connection was found dead, once
// Run has returned; 0: it did not end so.
func (c *Conn[In, Out]) suspect() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pauses == nil || c.err == nil {
		return 0
	}
	return c.watch.silence
}
