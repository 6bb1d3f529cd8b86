package carrier

// segmentCount is what became of a TCP connection's segments.
type segmentCount struct {
	sent  uint64
	again uint64 // sent again
	// stuck: one of full size is sent again and again, while others pass or the
	// peer's come.
	stuck bool
}

// Stats implements Conn.
func (c *tcpCarrier) Stats() Stats {
	s := c.carrier.Stats()
	c.lastMu.Lock()
	defer c.lastMu.Unlock()
	last := c.last
	if last == nil {
		now := segments(c.raw)
		last = &now
	}
	s.Packets, s.Lost = last.sent, last.again
	s.Stuck = c.stuck.Load()
	return s
}

// silence implements carrier's hook: while the peer is silent it looks for
// segments that are stuck. It reports whether there are since this look.
func (c *tcpCarrier) silence(silent bool) bool {
	if !silent {
		c.stuck.Store(false)
		return false
	}
	return segments(c.raw).stuck && !c.stuck.Swap(true)
}

// closeRaw closes the connection, once what the system knows of it is kept.
func (c *tcpCarrier) closeRaw() {
	c.lastMu.Lock()
	defer c.lastMu.Unlock()
	if c.last == nil {
		now := segments(c.raw)
		c.last = &now
	}
	c.raw.Close()
}
