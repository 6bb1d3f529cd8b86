package grants

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// Kept returns what is to be kept for the next start. What only an entry has
// shown is not: it can show it again.
func (s *Set) Kept() state.Grants {
	k := state.Grants{Stamp: s.stamp, Completed: s.completed, Known: s.complete}
	for _, p := range s.pairs {
		for _, h := range p.held {
			if !h.ahead {
				k.Held = append(k.Held, h.grant.AppendTo(nil))
			}
		}
	}
	sort.Slice(k.Held, func(i, j int) bool { return bytes.Compare(k.Held[i], k.Held[j]) < 0 })
	k.Removed = slices.Collect(maps.Keys(s.removed))
	sort.Slice(k.Removed, func(i, j int) bool { return bytes.Compare(k.Removed[i][:], k.Removed[j][:]) < 0 })
	return k
}

// Restore takes what Kept has returned in an earlier life of this portal. Each
// grant is checked as if the server had put it, by the stamp keys of then, and
// holds until a new connection is complete or its stamp is over. What is not
// right is left out. Versions that another policy key has signed than that of now do
// not count: they begin anew.
func (s *Set) Restore(now time.Time, kept state.Grants) []Change {
	s.stamp = kept.Stamp
	if kept.Known && (kept.Completed.Version == 0 || kept.Completed.SignedBy(s.policy)) {
		s.completed, s.complete = kept.Completed, true
	}
	for _, id := range kept.Removed[:min(len(kept.Removed), maxHeld)] {
		s.removed[id] = true
	}
	var changes []Change
	for _, b := range kept.Held {
		g, err := grant.Parse(b)
		if err != nil || !s.ours(g.Permission) || s.verify(g) != wire.ReasonNone {
			continue
		}
		if !s.removed[g.ID()] && s.hold(g, held{grant: g}) {
			changes = append(changes, s.settle(now, PairOf(g.Permission))...)
		}
	}
	return changes
}

// Peers returns the names of the portals with which a grant joins this one now,
// in order.
func (s *Set) Peers(now time.Time) []string {
	names := make(map[string]bool)
	for key, p := range s.pairs {
		if p.running && p.current.Valid(now) == wire.ReasonNone {
			names[s.other(key)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Joined returns a grant that joins this portal with another now, in either
// direction.
func (s *Set) Joined(now time.Time, peer string) (wire.GrantID, bool) {
	for key, p := range s.pairs {
		if s.other(key) == peer && p.running && p.current.Valid(now) == wire.ReasonNone {
			return p.current.ID(), true
		}
	}
	return wire.GrantID{}, false
}

// Secret returns a key that this portal has in common with another that a grant joins with
// it now, in either direction: that of the grant with the lowest id, so that both have the
// same if they hold the same grants.
func (s *Set) Secret(now time.Time, peer string) (secret [32]byte, ok bool) {
	var lowest wire.GrantID
	for key, p := range s.pairs {
		if s.other(key) != peer || !p.running {
			continue
		}
		for id, h := range p.held {
			if h.grant.Valid(now) == wire.ReasonNone && (!ok || bytes.Compare(id[:], lowest[:]) < 0) {
				lowest, secret, ok = id, h.grant.Secret(), true
			}
		}
	}
	return secret, ok
}

// Paths returns by which paths what joins this portal with another may go, as the grants
// that hold now say: what one of them says binds all. Should they contradict each other,
// nothing goes directly.
func (s *Set) Paths(now time.Time, peer string) grant.Direct {
	paths := grant.DirectAny
	for key, p := range s.pairs {
		if s.other(key) != peer {
			continue
		}
		if g, some := s.best(now, p); some {
			paths = max(paths, g.Direct)
		}
	}
	return paths
}

// other returns the name of the other portal of a pair.
func (s *Set) other(key Pair) string {
	if key.Entry == s.self.Name {
		return key.Exit
	}
	return key.Entry
}
