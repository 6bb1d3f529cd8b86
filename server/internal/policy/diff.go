package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/endpoint"
)

// Change is what another policy does to one pair of ends, or to a range of them.
type Change struct {
	Kind    ChangeKind     `json:"kind"`
	Entry   string         `json:"entry"`
	Listen  endpoint.Range `json:"listen"`
	Exit    string         `json:"exit"`
	Target  endpoint.Range `json:"target"`
	Forward string         `json:"forward"`          // of the new policy; of the old one for what closes
	Before  []string       `json:"before,omitempty"` // what the old policy says of it
	After   []string       `json:"after,omitempty"`  // and the new one
}

// ChangeKind is what happens to a pair of ends.
type ChangeKind string

// The kinds of changes.
const (
	Opens   ChangeKind = "opens"
	Closes  ChangeKind = "closes"
	Changes ChangeKind = "changes" // it stays, on other terms
)

// Compare returns what comes into force and what goes when the policy before, which
// may be nil, is replaced by p at the time now. Whether portals are enrolled makes no
// difference, and what is granted on request counts as open. A portal finds what
// concerns it where it is the entry or the exit.
func (p *Policy) Compare(before *Policy, now time.Time) []Change {
	if before == nil {
		before = &Policy{}
	}
	var list []Change
	add := func(kind ChangeKind, w pair, forward string, was, is []string) {
		list = append(list, Change{kind, w.entry, endpoint.Range{First: w.listen, Ports: 1}, w.exit, endpoint.Range{First: w.target, Ports: 1}, forward, was, is})
	}
	olds, news := before.words(), p.words()
	p.each(now, func(f *Forward, rank int, w pair) {
		g, before, ok := before.joins(w, now)
		is := ranked(news[f.key], f, rank)
		if !ok {
			add(Opens, w, f.Name, nil, is)
		} else if was := ranked(olds[g.key], g, before); !slices.Equal(was, is) {
			add(Changes, w, f.Name, was, is)
		}
	})
	before.each(now, func(g *Forward, rank int, w pair) {
		if _, _, ok := p.joins(w, now); !ok {
			add(Closes, w, g.Name, ranked(olds[g.key], g, rank), nil)
		}
	})
	return inRanges(list)
}

// ranked adds to what is said of a forward which of its targets is meant.
func ranked(said []string, f *Forward, rank int) []string {
	if len(f.To) == 1 {
		return said
	}
	return append(said[:len(said):len(said)], fmt.Sprintf("target %d of %d", rank+1, len(f.To)))
}

// words returns what is said of each forward, by its key.
func (p *Policy) words() map[string][]string {
	said := make(map[string][]string, len(p.Forwards))
	for i := range p.Forwards {
		said[p.Forwards[i].key] = p.Forwards[i].Says()
	}
	return said
}

// joins returns the forward that joins a pair and has not ended, and by which target.
func (p *Policy) joins(w pair, now time.Time) (*Forward, int, bool) {
	f, rank, ok := p.find(w)
	return f, rank, ok && !f.ended(now)
}

// each visits every pair that is joined by a forward that has not ended.
func (p *Policy) each(now time.Time, visit func(f *Forward, rank int, w pair)) {
	for i := range p.Forwards {
		f := &p.Forwards[i]
		if f.ended(now) {
			continue
		}
		for _, entry := range f.Entries {
			for rank, to := range f.leads(entry) {
				for n := range f.Listen.Ports {
					visit(f, rank, pair{entry, f.Listen.At(n), to.Exit, to.Dial.At(n)})
				}
			}
		}
	}
}

// inRanges sorts changes, and joins those that differ by their ports only and follow
// each other.
func inRanges(list []Change) []Change {
	slices.SortFunc(list, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Exit, b.Exit), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Forward, b.Forward),
			cmp.Compare(a.Listen.First.Host(), b.Listen.First.Host()), cmp.Compare(a.Target.First.Host(), b.Target.First.Host()),
			cmp.Compare(int(a.Listen.First.Port())-int(a.Target.First.Port()), int(b.Listen.First.Port())-int(b.Target.First.Port())),
			cmp.Compare(a.Listen.First.Port(), b.Listen.First.Port()), cmp.Compare(a.Listen.String(), b.Listen.String()), cmp.Compare(a.Target.String(), b.Target.String()))
	})
	var joined []Change
	for _, c := range list {
		if n := len(joined) - 1; n >= 0 && joined[n].follows(c) {
			joined[n].Listen.Ports++
			joined[n].Target.Ports++
			continue
		}
		joined = append(joined, c)
	}
	return joined
}

// follows reports whether next is the same change for the next port.
func (c Change) follows(next Change) bool {
	return c.Kind == next.Kind && c.Entry == next.Entry && c.Exit == next.Exit && c.Forward == next.Forward && c.Listen.First.Port() > 0 && c.Target.First.Port() > 0 &&
		c.Listen.Ports < endpoint.MaxPorts && int(c.Listen.First.Port())+c.Listen.Ports < 1<<16 && int(c.Target.First.Port())+c.Target.Ports < 1<<16 &&
		c.Listen.At(c.Listen.Ports) == next.Listen.First && c.Target.At(c.Target.Ports) == next.Target.First &&
		slices.Equal(c.Before, next.Before) && slices.Equal(c.After, next.After)
}
