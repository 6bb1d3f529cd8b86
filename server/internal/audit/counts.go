package audit

import (
	"maps"
	"sync"
)

// maxDecisions bounds the kinds of decisions that are told apart. All of their parts
// are words of the server's own.
const maxDecisions = 512

// Decision is a kind of record.
type Decision struct{ Event, Answer, Reason string }

// counts counts records by kind, whether they could be written or not.
type counts struct {
	mu sync.Mutex // guards the following
	n  map[Decision]uint64
}

func (c *counts) add(r Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[Decision]uint64)
	}
	d := Decision{r.Event, r.Answer, r.Reason}
	if _, known := c.n[d]; !known && len(c.n) >= maxDecisions {
		d = Decision{Event: "other"}
	}
	c.n[d]++
}

// Decisions returns how many records of each kind there were since the start.
func (l *Log) Decisions() map[Decision]uint64 {
	l.counts.mu.Lock()
	defer l.counts.mu.Unlock()
	return maps.Clone(l.counts.n)
}
