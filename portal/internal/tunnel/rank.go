package tunnel

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// rank orders carriers for what prefers a kind: the lowest is the best.
func (l *link) rank(kind wire.CarrierKind) int {
	rank := 0
	if l.silent.Load() {
		rank |= rankSilent
	}
	if l.retired.Load() {
		rank |= rankRetired
	}
	if l.doubtEnds(time.Now()) > 0 {
		rank |= rankDoubt
	}
	if l.direct == l.t.slow.Load() {
		rank |= rankPath
	}
	if l.detour.Load() {
		rank |= rankDetour
	}
	if l.conn.Kind() != kind {
		rank |= rankKind
	}
	return rank
}

const (
	rankKind = 1 << iota
	rankDetour
	rankPath
	rankDoubt
	rankRetired
	rankSilent
)

// pickLocked chooses a carrier: of the best ones that may be taken that with the
// fewest streams, but now if that is none of the worse.
func (t *Tunnel) pickLocked(kind wire.CarrierKind, now *link) *link {
	var best *link
	for _, l := range t.links {
		if t.mayTakeLocked(l) && l.before(best, kind) {
			best = l
		}
	}
	if best != nil && now != nil && slices.Contains(t.links, now) && t.mayTakeLocked(now) && now.rank(kind) <= best.rank(kind) {
		return now
	}
	return best
}

// bestLocked is pickLocked for what belongs to no stream or flow: it may take any
// carrier.
func (t *Tunnel) bestLocked(kind wire.CarrierKind) *link {
	var best *link
	for _, l := range t.links {
		if l.before(best, kind) {
			best = l
		}
	}
	return best
}

func (t *Tunnel) best(kind wire.CarrierKind) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bestLocked(kind)
}

// before reports whether the carrier is better than another, which may be nil.
func (l *link) before(o *link, kind wire.CarrierKind) bool {
	return o == nil || l.rank(kind) < o.rank(kind) || l.rank(kind) == o.rank(kind) && l.streams.Load() < o.streams.Load()
}

func (t *Tunnel) pick(kind wire.CarrierKind, now *link) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pickLocked(kind, now)
}
