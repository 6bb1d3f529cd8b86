package direct

import (
	"net/netip"
	"sync"
	"time"
)

// What may be sent to addresses that have never answered, for one peer, whatever it
// names and however often (T44): perAddress probes to each and maxUnanswered in all. With
// time a little comes back, so that a way that opens after days is still found.
const (
	perAddress    = 30
	maxUnanswered = 16 * perAddress
	addressRefill = time.Hour // for one probe to an address
	totalRefill   = 4 * time.Minute
	// maxSpent bounds the addresses that are remembered: all that maxUnanswered allows.
	maxSpent = maxUnanswered
)

// spender is at whose word probes are sent. Neighbours who claim to be a peer do not use up
// what is left for the addresses that the peer itself names.
type spender struct {
	peer  string
	heard bool
}

// quota is what is left to be sent to addresses of one peer that have never answered. It
// outlives the peer's tunnels. It is safe for concurrent use.
type quota struct {
	mu    sync.Mutex // guards the following
	total bucket
	spent map[netip.AddrPort]*bucket
}

// bucket counts what was spent; it comes back one by one.
type bucket struct {
	spent int
	since time.Time // of the last that came back, or of the first that was spent
	began time.Time // when nothing was spent last
}

// settle has come back what has come back.
func (b *bucket) settle(now time.Time, refill time.Duration) {
	if back := int(now.Sub(b.since) / refill); back > 0 {
		b.spent = max(0, b.spent-back)
		b.since = b.since.Add(time.Duration(back) * refill)
	}
	if b.spent == 0 {
		b.since, b.began = now, now
	}
}

func newQuota() *quota { return &quota{spent: make(map[netip.AddrPort]*bucket)} }

// spend reports whether a probe may be sent to an address that has never answered.
func (q *quota) spend(to netip.AddrPort, now time.Time) bool { return q.spendSeveral(to, 1, now) }

// spendSeveral is spend for what costs as much as several probes.
func (q *quota) spendSeveral(to netip.AddrPort, cost int, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total.settle(now, totalRefill)
	one := q.spent[to]
	if one == nil {
		one = &bucket{since: now, began: now}
	}
	one.settle(now, addressRefill)
	if q.total.spent+cost > maxUnanswered || one.spent+cost > perAddress {
		return false
	}
	if q.spent[to] == nil {
		q.tidyLocked(now)
		q.spent[to] = one
	}
	q.total.spent += cost
	one.spent += cost
	return true
}

// answered gives back what was spent on an address: it is the peer's. What may have come back
// with time since then is not given twice.
func (q *quota) answered(from netip.AddrPort, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if one := q.spent[from]; one != nil {
		q.total.settle(now, totalRefill)
		back := max(0, one.spent-int(now.Sub(one.began)/totalRefill))
		q.total.spent = max(0, q.total.spent-back)
		delete(q.spent, from)
	}
}

// refill gives everything back.
func (q *quota) refill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total = bucket{}
	clear(q.spent)
}

// full reports whether nothing is spent, so that the quota can be forgotten.
func (q *quota) full(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total.settle(now, totalRefill)
	q.tidyLocked(now)
	return q.total.spent == 0 && len(q.spent) == 0
}

// tidyLocked forgets addresses on which nothing is spent, and, at the bound, any one:
// what was sent there still counts in all.
func (q *quota) tidyLocked(now time.Time) {
	for a, one := range q.spent {
		if one.settle(now, addressRefill); one.spent == 0 {
			delete(q.spent, a)
		}
	}
	for a := range q.spent {
		if len(q.spent) < maxSpent {
			return
		}
		delete(q.spent, a)
	}
}
