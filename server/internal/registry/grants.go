package registry

import (
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
)

// Grant returns the grant with this id, not stamped.
func (r *Registry) Grant(id wire.GrantID) (grant.Grant, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g, ok := r.grants.byID[id]
	return g, ok
}

// Of returns all grants that a portal has part in and that have not ended at
// the time now, not stamped.
func (r *Registry) Of(portal string, now time.Time) []grant.Grant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]grant.Grant, 0, len(r.grants.byPortal[portal]))
	for _, id := range r.grants.byPortal[portal] {
		if g := r.grants.byID[id]; !Ended(g.Permission, now) {
			list = append(list, g)
		}
	}
	return list
}

// Joined reports whether some grant joins two portals, in either direction, at
// the time now.
func (r *Registry) Joined(a, b string, now time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, id := range r.grants.byPair[couple.Of(a, b)] {
		if !Ended(r.grants.byID[id].Permission, now) {
			return true
		}
	}
	return false
}

// Pin returns the relay at which alone the policy lets two portals meet at the
// time now, or "".
func (r *Registry) Pin(a, b string, now time.Time) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.policy == nil {
		return ""
	}
	return r.policy.Pin(a, b, now)
}

// Grants returns how many grants there are.
func (r *Registry) Grants() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.grants.byID)
}

// EndedBetween returns the grants whose own end lies after from and not after
// to.
func (r *Registry) EndedBetween(from, to time.Time) []grant.Permission {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []grant.Permission
	for _, id := range r.grants.ending {
		if p := r.grants.byID[id].Permission; !Ended(p, from) && Ended(p, to) {
			list = append(list, p)
		}
	}
	return list
}

// Holds reports whether a permission in force holds at the time now: ReasonNone, or
// why not.
func Holds(p grant.Permission, now time.Time) wire.Reason {
	switch {
	case Ended(p, now):
		return wire.ReasonGrantExpired
	case !p.Hours.Open(now):
		return wire.ReasonOutsideHours
	}
	return wire.ReasonNone
}

// Ended reports whether the permission's own end has come.
func Ended(p grant.Permission, now time.Time) bool { return !p.End.IsZero() && !now.Before(p.End) }
