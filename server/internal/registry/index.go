package registry

import (
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// index finds grants by what is asked of them. It is never changed once it is
// in use: a change builds a new one.
type index struct {
	byID     map[wire.GrantID]grant.Grant
	byPortal map[string][]wire.GrantID
	byPair   map[pair][]wire.GrantID
	ending   []wire.GrantID // those with an end of their own
}

// pair is an unordered pair of portals.
type pair struct{ a, b string }

func pairOf(a, b string) pair {
	if b < a {
		a, b = b, a
	}
	return pair{a, b}
}

func newIndex() *index {
	return &index{
		byID:     make(map[wire.GrantID]grant.Grant),
		byPortal: make(map[string][]wire.GrantID),
		byPair:   make(map[pair][]wire.GrantID),
	}
}

func (x *index) add(g grant.Grant) {
	id := g.ID()
	x.byID[id] = g
	for _, name := range []string{g.Entry.Name, g.Exit.Name} {
		x.byPortal[name] = append(x.byPortal[name], id)
	}
	p := pairOf(g.Entry.Name, g.Exit.Name)
	x.byPair[p] = append(x.byPair[p], id)
	if !g.End.IsZero() {
		x.ending = append(x.ending, id)
	}
}
