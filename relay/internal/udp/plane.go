package udp

import (
	"fmt"
	"math"
	"sync"

	"github.com/netport/netport/bpf"
)

// Plane forwards in user space: it is the data plane that is always there. It
// works with the sockets that a Relay attaches to it.
type Plane struct {
	mu        sync.Mutex // guards the following
	listening map[uint16]*socket
	connected map[bpf.Leg]*socket
	routes    map[bpf.Leg]*route // by where they come from
}

// NewPlane returns a Plane without sockets.
func NewPlane() *Plane {
	return &Plane{
		listening: make(map[uint16]*socket),
		connected: make(map[bpf.Leg]*socket),
		routes:    make(map[bpf.Leg]*route),
	}
}

var _ bpf.Plane = (*Plane)(nil)

// Name implements bpf.Plane.
func (*Plane) Name() string { return "userspace" }

func (p *Plane) attach(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.remote.IsValid() {
		p.connected[bpf.Leg{Remote: s.remote, Port: s.port}] = s
	} else {
		p.listening[s.port] = s
	}
}

func (p *Plane) detach(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.remote.IsValid() {
		delete(p.connected, bpf.Leg{Remote: s.remote, Port: s.port})
	} else {
		delete(p.listening, s.port)
	}
}

func (p *Plane) socketLocked(l bpf.Leg) (*socket, error) {
	if s, ok := p.connected[l]; ok {
		return s, nil
	}
	if s, ok := p.listening[l.Port]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("no socket at UDP port %d", l.Port)
}

// Add implements bpf.Plane.
func (p *Plane) Add(pair bpf.Pair) error {
	if pair.Protocol != bpf.UDP {
		return fmt.Errorf("add a %v pair to the userspace plane: it carries udp", pair.Protocol)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := p.socketLocked(pair.A)
	if err != nil {
		return fmt.Errorf("add pair: %w", err)
	}
	b, err := p.socketLocked(pair.B)
	if err != nil {
		return fmt.Errorf("add pair: %w", err)
	}
	p.setLocked(a, b, pair.A, pair.B)
	p.setLocked(b, a, pair.B, pair.A)
	return nil
}

// setLocked makes what comes from a leg at in go to another leg by out.
func (p *Plane) setLocked(in, out *socket, from, to bpf.Leg) {
	r := &route{from: from, to: to, out: out, count: new(traffic)}
	r.maxSegment.Store(math.MaxInt32)
	if !out.remote.IsValid() {
		r.address = appendSockaddr(nil, to.Remote, out.family)
	}
	old := p.routes[from]
	if old != nil {
		r.count = old.count
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
	if in, err := p.socketLocked(from); err == nil {
		in.replace(r, nil)
	}
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
	for from, r := range p.routes {
		if in, err := p.socketLocked(from); err == nil {
			in.replace(r, nil)
		}
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
