package control

import (
	"fmt"
	"time"

	"github.com/netport/netport/proto/wire"
)

// appendLocked queues a message and has it written.
func (c *Conn[In, Out]) appendLocked(m wire.Message) {
	before := len(c.queue)
	c.queue = wire.AppendMessage(c.queue, m)
	c.unsent += len(c.queue) - before
	c.writeLocked()
}

// writeLocked has a goroutine write what is queued, once Run was called. None begins
// when the connection has ended, nor, for nothing is queued then, behind a Goodbye: so
// Run can wait for the last.
func (c *Conn[In, Out]) writeLocked() {
	if c.running && !c.writing && !c.closed && len(c.queue) > 0 {
		c.writing = true
		c.writers.Go(c.write)
	}
}

// queued returns what is to be written, and whether it is the last; nothing: then who
// writes is done.
func (c *Conn[In, Out]) queued() (b []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.queue) == 0 {
		c.writing = false
		return nil, false
	}
	b, c.queue = c.queue, nil
	return b, c.last
}

// write sends what is queued, until nothing is or the connection has ended.
func (c *Conn[In, Out]) write() {
	for {
		b, last := c.queued()
		if len(b) == 0 {
			return
		}
		for len(b) > 0 {
			n := min(len(b), writePiece)
			if err := c.writeNow(b[:n]); err != nil {
				c.end(fmt.Errorf("write to %s: %w", c.peer.ID, err))
				return
			}
			b = b[n:]
		}
		if last {
			c.end(nil)
			return
		}
	}
}

func (c *Conn[In, Out]) writeNow(b []byte) error {
	c.mu.Lock()
	by := c.lastBy
	if !c.last {
		by = time.Now().Add(writeTimeout)
	}
	c.tls.SetWriteDeadline(by)
	c.mu.Unlock()
	if _, err := c.tls.Write(b); err != nil {
		return err
	}
	c.wrote.Store(int64(time.Since(c.made)))
	c.mu.Lock()
	c.unsent -= len(b)
	c.mu.Unlock()
	return nil
}
