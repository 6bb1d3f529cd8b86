package carrier

import (
	"fmt"

	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

func (c *quicCarrier) setControl(s *quic.Stream) {
	s.SetPriority(urgencyControl, true)
	c.control, c.in = s, &frames{from: s, held: &c.held}
}

// exchange writes what waits and reads the peer's HELLO.
func (c *quicCarrier) exchange() (m wire.TunnelHello, err error) {
	if err := c.findControl(); err != nil {
		return m, err
	}
	if b, _ := c.takeControl(); len(b) > 0 {
		if _, err := c.control.Write(b); err != nil {
			return m, c.explain(err)
		}
	}
	return c.firstFrame()
}

// firstFrame reads the peer's HELLO.
func (c *quicCarrier) firstFrame() (m wire.TunnelHello, err error) {
	err = c.in.next(func(f wire.FrameHeader, body []byte) error {
		m, err = c.checkHello(f, body)
		if err == nil {
			c.counted(f)
		}
		return err
	})
	return m, c.explain(err)
}

// findControl has the TLS server take the control stream: the first.
func (c *quicCarrier) findControl() error {
	if c.control != nil {
		return nil
	}
	s, err := c.conn.AcceptStream(c.conn.Context())
	if err != nil {
		return c.explain(err)
	}
	c.setControl(s)
	return nil
}

// Send implements Conn.
func (c *quicCarrier) Send(frames []byte) {
	if !c.queueControl(frames, maxControl) {
		c.Abort(errUnread)
	}
}

// Try implements Conn.
func (c *quicCarrier) Try(frames []byte) bool { return c.queueControl(frames, maxControl/2) }

// queueControl queues control frames if no more than limit bytes wait with them.
func (c *quicCarrier) queueControl(frames []byte, limit int) bool {
	c.mu.Lock()
	if len(c.queue)+len(frames) > limit {
		c.mu.Unlock()
		return false
	}
	c.queue = append(c.queue, frames...)
	c.mu.Unlock()
	c.wakeControl()
	return true
}

func (c *quicCarrier) wakeControl() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *quicCarrier) takeControl() (b []byte, shut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, c.queue = c.queue, nil
	return b, c.shut
}

// writeControl writes what Send was given, and ends the control stream after the
// last of it.
func (c *quicCarrier) writeControl() {
	for {
		select {
		case <-c.live.ended:
			return
		case <-c.wake:
		}
		b, shut := c.takeControl()
		if len(b) > 0 {
			if _, err := c.control.Write(b); err != nil {
				c.Abort(fmt.Errorf("write to the peer: %w", c.explain(err)))
				return
			}
			c.stats.sent.Add(uint64(len(b)))
		}
		if shut {
			_ = c.control.Close()
			return
		}
	}
}
