package metrics

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// maxCounts bounds the names that a Counts tells apart; the others are one.
const maxCounts = 256

// Other is the name in a Counts of what came when there were too many names.
const Other = "other"

// Counts counts by name: for what happens seldom, such as refusals by reason. The
// zero Counts is ready to use, from any goroutine.
type Counts struct {
	mu sync.Mutex // guards the following
	n  map[string]uint64
}

// Add counts one.
func (c *Counts) Add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]uint64)
	}
	if _, known := c.n[name]; !known && len(c.n) >= maxCounts {
		name = Other
	}
	c.n[name]++
}

// All returns what was counted.
func (c *Counts) All() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// Histogram counts durations by how long they were. It is safe for concurrent use,
// and counting allocates nothing.
type Histogram struct {
	bounds []time.Duration // rising
	counts []atomic.Uint64 // up to each bound and above that before; the last one above all
	sum    atomic.Int64    // nanoseconds
}

// NewHistogram returns a histogram with these upper bounds.
func NewHistogram(bounds ...time.Duration) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	i, _ := slices.BinarySearch(h.bounds, d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot is a Histogram at a moment.
type Snapshot struct {
	bounds []time.Duration
	counts []uint64
	sum    time.Duration
}

// Snapshot returns what was counted.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{bounds: h.bounds, counts: make([]uint64, len(h.counts)), sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		s.counts[i] = h.counts[i].Load()
	}
	return s
}

func (s *Snapshot) appendTo(b []byte, name string) []byte {
	var below uint64
	for i, n := range s.counts {
		bound := math.Inf(1)
		if i < len(s.bounds) {
			bound = s.bounds[i].Seconds()
		}
		below += n
		b = appendName(b, name+"_bucket", `le="`+string(appendFloat(nil, bound))+`"`)
		b = append(strconv.AppendUint(b, below, 10), '\n')
	}
	b = append(appendFloat(appendName(b, name+"_sum", ""), s.sum.Seconds()), '\n')
	return append(strconv.AppendUint(appendName(b, name+"_count", ""), below, 10), '\n')
}
