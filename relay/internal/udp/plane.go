package udp

import (
	"fmt"
	"sync"

	"github.com/netport/netport/bpf"
)

// plane forwards in user space: it is the data plane that is always there. It
// works with the sockets that a Relay attaches to it, leg by leg.
type plane struct {
	mu      sync.Mutex // guards the following
	sockets map[bpf.Leg]*socket
	routes  map[bpf.Leg]*route // by where they come from
}

func newPlane() *plane {
	return &plane{sockets: make(map[bpf.Leg]*socket), routes: make(map[bpf.Leg]*route)}
}

// attach says by which socket a leg is heard and sent to.
func (p *plane) attach(l bpf.Leg, s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sockets[l] = s
}

func (p *plane) detach(l bpf.Leg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, l)
}

// add makes both directions of a pair forward from now on, as bpf.Plane.Add does,
// but for the lifetime: that is kept by whoever closes sessions.
func (p *plane) add(pair bpf.Pair, terms bpf.Terms) error {
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
func (p *plane) setLocked(in, out *socket, from, to bpf.Leg, terms bpf.Terms) {
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

// remove ends both directions of a pair, but for one that a later add has sent
// elsewhere, and returns what those that it ended have carried.
func (p *plane) remove(pair bpf.Pair) bpf.Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bpf.Counters{FromA: p.dropLocked(pair.A, pair.B), FromB: p.dropLocked(pair.B, pair.A)}
}

func (p *plane) dropLocked(from, to bpf.Leg) bpf.Traffic {
	r, ok := p.routes[from]
	if !ok || r.to != to {
		return bpf.Traffic{}
	}
	delete(p.routes, from)
	r.in.replace(r, nil)
	return r.count.load()
}

// counters returns what both directions of a pair have carried so far.
func (p *plane) counters(pair bpf.Pair) (c bpf.Counters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.routes[pair.A]; ok && r.to == pair.B {
		c.FromA = r.count.load()
	}
	if r, ok := p.routes[pair.B]; ok && r.to == pair.A {
		c.FromB = r.count.load()
	}
	return c
}

// close ends all forwarding.
func (p *plane) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.routes {
		r.in.replace(r, nil)
	}
	clear(p.routes)
}

// route returns the way of packets that come from a leg, or nil.
func (p *plane) route(from bpf.Leg) *route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.routes[from]
}
