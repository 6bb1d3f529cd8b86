package registry

import (
	"iter"
	"maps"
	"slices"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
)

// index finds grants by what is asked of them.
type index struct {
	byID     map[wire.GrantID]grant.Grant
	byPortal map[string][]wire.GrantID
	byPair   map[couple.Portals][]wire.GrantID
	ending   []wire.GrantID // those with an end of their own
}

func newIndex() *index {
	return &index{
		byID:     make(map[wire.GrantID]grant.Grant),
		byPortal: make(map[string][]wire.GrantID),
		byPair:   make(map[couple.Portals][]wire.GrantID),
	}
}

func (x *index) add(g grant.Grant) {
	id := g.ID()
	x.byID[id] = g
	for _, name := range []string{g.Entry.Name, g.Exit.Name} {
		x.byPortal[name] = append(x.byPortal[name], id)
	}
	p := couple.Of(g.Entry.Name, g.Exit.Name)
	x.byPair[p] = append(x.byPair[p], id)
	if !g.End.IsZero() {
		x.ending = append(x.ending, id)
	}
}

// of returns the grants that a portal has part in; "" for all.
func (x *index) of(portal string) iter.Seq[grant.Grant] {
	if portal == "" {
		return maps.Values(x.byID)
	}
	return func(yield func(grant.Grant) bool) {
		for _, id := range x.byPortal[portal] {
			if !yield(x.byID[id]) {
				return
			}
		}
	}
}

// change takes grants out and adds others.
func (x *index) change(removed []grant.Permission, added []grant.Grant) {
	gone := make(map[wire.GrantID]bool, len(removed))
	portals, pairs := make(map[string]bool), make(map[couple.Portals]bool)
	for _, p := range removed {
		id := p.ID()
		gone[id] = true
		delete(x.byID, id)
		portals[p.Entry.Name], portals[p.Exit.Name], pairs[couple.Of(p.Entry.Name, p.Exit.Name)] = true, true, true
	}
	isGone := func(id wire.GrantID) bool { return gone[id] }
	drop(x.byPortal, portals, isGone)
	drop(x.byPair, pairs, isGone)
	if len(removed) > 0 {
		x.ending = slices.DeleteFunc(x.ending, isGone)
	}
	for _, g := range added {
		x.add(g)
	}
}

// drop takes ids out of some of the lists of a map, and what is empty then out of the map.
func drop[K comparable](lists map[K][]wire.GrantID, some map[K]bool, isGone func(wire.GrantID) bool) {
	for key := range some {
		if lists[key] = slices.DeleteFunc(lists[key], isGone); len(lists[key]) == 0 {
			delete(lists, key)
		}
	}
}
