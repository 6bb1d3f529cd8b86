package carrier

// segmentCount is what became of a TCP connection's segments.
type segmentCount struct {
	sent  uint64
	again uint64 // sent again
	stuck bool   // one of full size is sent again and again
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
	s.Stuck = last.stuck && c.live.silent.Load()
	return s
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
