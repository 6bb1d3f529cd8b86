package rawip

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	limiterPause = 20 * time.Millisecond // between two, in the long run
	limiterBurst = 10                    // at once
)

// limiter bounds how often an address is told something. Addresses share a fixed
// number of places, so that many of them do not take memory.
type limiter struct {
	seed maphash.Seed
	free [256]time.Time // when the place is as if nothing had been sent
}

func newLimiter() limiter { return limiter{seed: maphash.MakeSeed()} }

func (l *limiter) allow(now time.Time, a netip.Addr) bool {
	free := &l.free[maphash.Comparable(l.seed, a)%uint64(len(l.free))]
	if free.Before(now) {
		*free = now
	}
	if free.Sub(now) > (limiterBurst-1)*limiterPause {
		return false
	}
	*free = free.Add(limiterPause)
	return true
}
