package policy

import (
	"fmt"

	"github.com/netport/netport/proto/endpoint"
)

// listener is what only one forward can have. Connections to "stdio:" name
// their target, so there each target is a listener of its own.
type listener struct {
	entry  string
	listen endpoint.Endpoint
	exit   string
	target endpoint.Endpoint
}

// spot is a port of a forward: its number in the forward's ranges.
type spot struct{ forward, port int }

// port is a port of a portal, at whichever of its addresses.
type port struct {
	entry  string
	scheme endpoint.Scheme
	number uint16
}

// use is that a forward listens at a port.
type use struct {
	forward int
	all     bool // at all addresses
}

// tally counts what a policy comes to, and notes which ports it uses.
type tally struct {
	grants    int
	perPortal map[string]int
	ports     map[port]use
}

func newTally() *tally {
	return &tally{perPortal: make(map[string]int), ports: make(map[port]use)}
}

// add counts a forward.
func (t *tally) add(f *Forward) error {
	for _, entry := range f.Entries {
		for _, to := range f.leads(entry) {
			if t.grants += f.Listen.Ports; t.grants > MaxGrants {
				return fmt.Errorf("the policy comes to more than %d grants", MaxGrants)
			}
			for _, portal := range []string{entry, to.Exit} {
				if t.perPortal[portal] += f.Listen.Ports; t.perPortal[portal] > MaxPerPortal {
					return fmt.Errorf("the portal %q comes to more than %d grants", portal, MaxPerPortal)
				}
			}
		}
	}
	return nil
}

// leads returns where f leads from one of its entries, with the rank of each: a
// portal is not led to itself.
func (f *Forward) leads(entry string) func(yield func(rank int, to Target) bool) {
	return func(yield func(int, Target) bool) {
		for rank, to := range f.To {
			if to.Exit != entry && !yield(rank, to) {
				return
			}
		}
	}
}

// listen notes where the forward i listens at one of its entries.
func (p *Policy) listen(entry string, i int, t *tally) error {
	f := &p.Forwards[i]
	for n := range f.Listen.Ports {
		at := f.Listen.At(n)
		if at.Scheme() == endpoint.Stdio {
			for _, to := range f.leads(entry) {
				if err := p.take(listener{entry, at, to.Exit, to.Dial.First}, i, n); err != nil {
					return err
				}
			}
			return nil
		}
		if err := p.take(listener{entry: entry, listen: at}, i, n); err != nil {
			return err
		}
		ap, ok := at.AddrPort()
		if !ok {
			continue
		}
		is := use{i, ap.Addr().IsUnspecified()}
		key := port{entry, at.Scheme(), at.Port()}
		if other, ok := t.ports[key]; ok && (is.all || other.all) {
			return p.taken(f, entry, at, p.Forwards[other.forward])
		}
		t.ports[key] = is
	}
	return nil
}

func (p *Policy) take(l listener, i, n int) error {
	if other, ok := p.listeners[l]; ok {
		return p.taken(&p.Forwards[i], l.entry, l.listen, p.Forwards[other.forward])
	}
	p.listeners[l] = spot{i, n}
	return nil
}

func (p *Policy) taken(f *Forward, entry string, at endpoint.Endpoint, other Forward) error {
	if f.Name == other.Name {
		return p.file.Errorf(f.key+".from", "forward %q listens at %s of %s twice", f.Name, at, entry)
	}
	return p.file.Errorf(f.key+".from", "forward %q: %s listens at %s for the forward %q already", f.Name, entry, other.Listen, other.Name)
}

// find returns the forward, the rank and the port number by which a pair of ends is
// joined. It looks at one listener and its targets, however large the policy is.
func (p *Policy) find(w pair) (f *Forward, rank int, ok bool) {
	l := listener{entry: w.entry, listen: w.listen}
	if w.listen.Scheme() == endpoint.Stdio {
		l.exit, l.target = w.exit, w.target
	}
	at, ok := p.listeners[l]
	if !ok {
		return nil, 0, false
	}
	f = &p.Forwards[at.forward]
	for rank, to := range f.leads(w.entry) {
		if to.Exit == w.exit && to.Dial.At(at.port) == w.target {
			return f, rank, true
		}
	}
	return nil, 0, false
}

// pair is what a grant joins.
type pair struct {
	entry  string
	listen endpoint.Endpoint
	exit   string
	target endpoint.Endpoint
}

func (w pair) String() string {
	return fmt.Sprintf("%s %s -> %s %s", w.entry, w.listen, w.exit, w.target)
}
