package tunnel

import (
	"sync/atomic"

	"github.com/netport/netport/portal/internal/stream"
)

// Budget bounds the bytes that tunnels hold or have promised to hold: what
// was sent and is not yet acknowledged, and every window that was granted to a
// peer, used or not. One Budget is shared by all tunnels of a portal; each
// tunnel takes a part of it. A Budget is safe for concurrent use.
type Budget struct {
	parent *Budget
	limit  int64
	used   atomic.Int64
}

// NewBudget returns a Budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// part returns a Budget of at most limit bytes whose use also counts in b.
func (b *Budget) part(limit int64) *Budget { return &Budget{parent: b, limit: limit} }

// Used returns the bytes in use.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// add counts n bytes, which may be negative. It does not refuse: what a stream
// was promised cannot be taken back. The limit is kept by not promising more.
func (b *Budget) add(n int64) {
	for ; b != nil; b = b.parent {
		b.used.Add(n)
	}
}

// tight reports whether more than three quarters would be in use with so many
// bytes more: windows then do not grow and new streams start small.
func (b *Budget) tight(more int) bool {
	for ; b != nil; b = b.parent {
		if b.used.Load()+int64(more) > b.limit-b.limit/4 {
			return true
		}
	}
	return false
}

// full reports whether all is in use: nothing new is opened.
func (b *Budget) full() bool {
	for ; b != nil; b = b.parent {
		if b.used.Load() >= b.limit {
			return true
		}
	}
	return false
}

// window is how much a new stream takes ahead of its application.
func (b *Budget) window() int {
	if b.tight(stream.InitialWindow) {
		return stream.SmallWindow
	}
	return stream.InitialWindow
}
