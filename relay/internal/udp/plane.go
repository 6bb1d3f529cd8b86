package udp

import (
	"fmt"
	"sync"

	"github.com/netport/netport/bpf"
)

// Plane forwards in user space: it is the data plane that is always there. It
// works with the sockets that a Relay attaches to it, leg by leg.
type Plane struct {
	mu      sync.Mutex // guards the following
	sockets map[bpf.Leg]*socket
	routes  map[bpf.Leg]*route // by where they come from
}

// NewPlane returns a Plane without sockets.
func NewPlane() *Plane {
	return &Plane{
		sockets: make(map[bpf.Leg]*socket),
		routes:  make(map[bpf.Leg]*route),
	}
}

var _ bpf.Plane = (*Plane)(nil)

// Name implements bpf.Plane.
func (*Plane) Name() string { return "userspace" }

// attach says by which socket a leg is heard and sent to.
func (p *Plane) attach(l bpf.Leg, s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets[l] = s
}

func (p *Plane) detach(l bpf.Leg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, l)
}

// Add implements bpf.Plane. Here lifetimes are kept by whoever closes sessions.
func (p *Plane) Add(pair bpf.Pair, terms bpf.Terms) error {
	if pair.Protocol != bpf.UDP {
		return fmt.Errorf("add a %v pair to the userspace plane: it carries udp", pair.Protocol)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a, b := p.sockets[pair.A], p.sockets[pair.B]
	if a == nil || b == nil {
		return fmt.Errorf("add a pair of %v and %v: no socket is attached for it", pair.A.Remote, pair.B.Remote)
	}
	p.setLocked(a, b, pair.A, pair.B, terms)
	p.setLocked(b, a, pair.B, pair.A, terms)
	return nil
}

// setLocked makes what comes from a leg at in go to another leg by out.
func (p *Plane) setLocked(in, out *socket, from, to bpf.Leg, terms bpf.Terms) {
	old := p.routes[from]
	r := newRoute(in, out, from, to, terms, old)
	if old != nil && old.in != in {
		old.in.replace(old, nil)
	}
	p.routes[from] = r
	in.replace(old, r)
}

// replace swaps old for anew in the table that the reader sees. Either may be
// nil.
func (s *socket) replace(old, anew *route) {
	var list []*route
	if now := s.routes.Load(); now != nil {
		for _, r := range *now {
			if r != old {
				list = append(list, r)
			}
		}
	}
	if anew != nil {
		list = append(list, anew)
	}
	s.routes.Store(&list)
}

// Remove implements bpf.Plane.
func (p *Plane) Remove(pair bpf.Pair) (bpf.Counters, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bpf.Counters{FromA: p.dropLocked(pair.A, pair.B), FromB: p.dropLocked(pair.B, pair.A)}, nil
}

func (p *Plane) dropLocked(from, to bpf.Leg) bpf.Traffic {
	r, ok := p.routes[from]
	if !ok || r.to != to {
		return bpf.Traffic{}
	}
	delete(p.routes, from)
	r.in.replace(r, nil)
	return r.count.load()
}

// Counters implements bpf.Plane.
func (p *Plane) Counters(pair bpf.Pair) (bpf.Counters, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var c bpf.Counters
	if r, ok := p.routes[pair.A]; ok && r.to == pair.B {
		c.FromA = r.count.load()
	}
	if r, ok := p.routes[pair.B]; ok && r.to == pair.A {
		c.FromB = r.count.load()
	}
	return c, nil
}

// Close implements bpf.Plane.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.routes {
		r.in.replace(r, nil)
	}
	clear(p.routes)
	return nil
}

// route returns the way of packets that come from a leg, or nil.
func (p *Plane) route(from bpf.Leg) *route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.routes[from]
}
