package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// Allow opens a forward on request for a time, for all portals that it is from or
// for one only, on the word of by. It replaces what was allowed the same before. In
// strict mode it opens when it was signed (Pending).
func (r *Registry) Allow(forward, only, by string, length time.Duration) (policy.Opening, Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	if r.policy == nil {
		return policy.Opening{}, Diff{}, fmt.Errorf("no policy was applied yet")
	}
	o, err := r.policy.Open(forward, only, by, length, r.now())
	if err != nil {
		return policy.Opening{}, Diff{}, err
	}
	diff, err := r.reopen("forward "+forward+" allowed by "+by, func(open policy.Openings) { open[o.Key()] = o })
	return o, diff, err
}

// EndAllowed takes back what was allowed of a forward, for all portals, and returns
// it. It is an error if nothing was.
func (r *Registry) EndAllowed(forward, by string) ([]policy.Opening, Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	list := slices.DeleteFunc(r.Openings(), func(o policy.Opening) bool { return o.Forward != forward })
	if len(list) == 0 {
		return nil, Diff{}, fmt.Errorf("forward %q is not allowed on request now", forward)
	}
	diff, err := r.reopen("forward "+forward+" ended by "+by, func(open policy.Openings) {
		for _, o := range list {
			delete(open, o.Key())
		}
	})
	return list, diff, err
}

// reopen changes what is open on request. change is held.
func (r *Registry) reopen(cause string, update func(policy.Openings)) (Diff, error) {
	r.mu.RLock()
	next, rules, who := r.applied, r.policy, r.holdersLocked()
	r.mu.RUnlock()
	next.Cause = cause
	update(who.open)
	return r.commit(store.Change{}, next, rules, who, nil)
}

// Lapse forgets the openings that have ended by themselves: Diff.Lapsed.
func (r *Registry) Lapse() (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	var lapsed []policy.Opening
	if r.policy != nil {
		_, lapsed = r.policy.Live(r.openings, r.now())
	}
	r.mu.RUnlock()
	if len(lapsed) == 0 {
		return Diff{Version: r.Applied().Version}, nil
	}
	return r.reopen("what was allowed on request has ended", func(policy.Openings) {})
}

// Pending returns the openings under which something waits for a signature, by forward
// and portal; in strict mode only.
func (r *Registry) Pending() []policy.Opening {
	open := r.Openings()
	if !r.Strict() || len(open) == 0 {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	held := r.heldLocked()
	who := r.holdersLocked()
	waits := make(map[policy.OpeningKey]bool)
	for _, p := range who.expand(r.policy.Grants(who.keys, who.open, r.now())) {
		if !held[content(p)] {
			waits[policy.OpeningKey{Forward: p.Forward}] = true
			waits[policy.OpeningKey{Forward: p.Forward, Only: p.Entry.Name}] = true
		}
	}
	return slices.DeleteFunc(open, func(o policy.Opening) bool { return !waits[o.Key()] })
}

// Openings returns what is allowed on request now, by forward and portal.
func (r *Registry) Openings() []policy.Opening {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.policy == nil {
		return nil
	}
	live, _ := r.policy.Live(r.openings, r.now())
	return slices.SortedFunc(maps.Values(live), policy.Opening.Compare)
}

// Allowed returns what was allowed on request, as far as it is kept.
func (r *Registry) Allowed() policy.Openings {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.openings)
}

// putOpenings adds to a change what makes live of what is kept.
func (r *Registry) putOpenings(live policy.Openings, change *store.Change) error {
	for key, o := range live {
		if r.openings[key] == o {
			continue
		}
		value, err := json.Marshal(o)
		if err != nil {
			return err
		}
		change.Put[openingKey(key)] = value
	}
	for key := range r.openings {
		if _, ok := live[key]; !ok {
			change.Delete = append(change.Delete, openingKey(key))
		}
	}
	return nil
}

func openingKey(k policy.OpeningKey) string { return openingPrefix + k.Forward + "/" + k.Only }
