package control

import (
	"context"
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

// watch keeps the connection alive and notices when it is not, or when ctx is
// cancelled.
func (c *Conn[In, Out]) watch(ctx context.Context) {
	timer := time.NewTimer(c.pause())
	defer timer.Stop()
	var (
		waiting bool      // for any message after a Ping
		before  uint64    // messages received when it was sent
		due     time.Time // when the wait is over
	)
	ask := func(wait, silence time.Duration) {
		waiting, before, due = true, c.received.Load(), time.Now().Add(wait)
		c.setAsked(silence)
		timer.Reset(wait)
		c.enqueue(wire.Ping{Token: uint64(due.UnixNano())})
	}
	stop := ctx.Done()
	for {
		select {
		case <-c.probe:
			switch {
			case !waiting || c.received.Load() != before:
				ask(ProbeTimeout, 0)
			case time.Until(due) > ProbeTimeout:
				due = time.Now().Add(ProbeTimeout)
				timer.Reset(ProbeTimeout)
			}
		case <-timer.C:
			pause := c.pause()
			silence := time.Since(c.made) - time.Duration(c.heard.Load())
			answered := c.received.Load() != before
			switch {
			case waiting && !answered && time.Since(due) > maxLate:
				ask(ProbeTimeout, 0)
			case waiting && !answered:
				c.end(fmt.Errorf("no answer from %s to a ping", c.peer.ID))
				return
			case silence >= pause:
				ask(PongTimeout, c.silent(pause, silence))
			default:
				waiting = false
				timer.Reset(pause - silence)
			}
		case <-stop:
			stop = nil
			c.Close(wire.ReasonShutdown, "")
		case <-c.over:
			return
		}
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

func (c *Conn[In, Out]) setAsked(silence time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = silence
}

// answered takes that the peer lives.
func (c *Conn[In, Out]) answered() {
	c.mu.Lock()
	silence := c.asked
	c.asked = 0
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
	return c.asked
}
