package udp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

// session is one session's sockets and bound legs.
type session struct {
	lease.Session
	sockets []*socket // none: the shared port only

	mu          sync.Mutex // guards the following
	closed      bool
	connections map[uint16]*connection
	legs        map[bpf.Leg]leg.ID // all that are bound
	carried     lease.Traffic      // by pairs that are gone
	counts      Totals             // likewise, since the relay started
}

// connection is two legs that are bound or wait to be.
type connection struct {
	legs  [2]bpf.Leg // zero: not bound
	ports [2]*socket // where a bound leg is heard and sent to
	held  [2][]held  // packets of a bound leg that wait for the other
}

type held struct {
	packet []byte
	ecn    byte
}

// pair returns the pair of both legs, if both are bound.
func (c *connection) pair() (bpf.Pair, bool) {
	p := bpf.Pair{Protocol: bpf.UDP, A: c.legs[0], B: c.legs[1]}
	return p, p.A.Port != 0 && p.B.Port != 0
}

// Open lets a session's legs bind, at its own port if it has one. An error
// means that the port could not be opened: nothing is left behind.
func (r *Relay) Open(s lease.Session) error {
	_, err := r.open(s)
	return err
}

func (r *Relay) open(s lease.Session) (*session, error) {
	n := &session{Session: s, connections: make(map[uint16]*connection), legs: make(map[bpf.Leg]leg.ID)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("open session %v: %w", s.ID, context.Canceled)
	}
	if s.Port != 0 {
		var err error
		if n.sockets, err = r.listen(s.Port, n); err != nil {
			return nil, err
		}
	}
	r.sessions[s.ID] = n
	return n, nil
}

// Close ends a session, in the kernel plane too. It returns what the session's
// UDP legs carried, when nothing of it is read any more.
func (r *Relay) Close(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	s, ok := r.sessions[id]
	delete(r.sessions, id)
	r.mu.Unlock()
	if !ok {
		return lease.Traffic{}
	}
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.connections {
		if p, ok := c.pair(); ok {
			r.removeLocked(s, p)
		}
		for _, l := range c.legs {
			r.plane.detach(l)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.past = r.past.plus(s.counts)
	return s.carried
}

// stop closes the sockets of a session and returns when nothing of it is read
// any more.
func (s *session) stop() {
	s.mu.Lock()
	s.closed = true
	sockets := s.sockets
	for _, c := range s.connections {
		for _, p := range c.ports {
			if p != nil && p.parent != nil {
				sockets = append(sockets, p)
			}
		}
	}
	s.mu.Unlock()
	stopAll(sockets)
	for _, p := range sockets {
		p.settle() // its reader may be counting
	}
}

// addLocked makes a pair of a session forward.
func (r *Relay) addLocked(s *session, c *connection, pair bpf.Pair) error {
	terms := r.terms(s)
	if err := r.plane.add(pair, terms); err != nil {
		return err
	}
	r.releaseLocked(c) // before the kernel overtakes it
	r.shortcut.add(pair, terms)
	return nil
}

// terms are those of all pairs of a session.
func (r *Relay) terms(s *session) bpf.Terms {
	terms := *r.limits.Load()
	terms.Lifetime = s.Lifetime
	return terms
}

// removeLocked takes a pair of a session out of all planes and keeps its
// counters.
func (r *Relay) removeLocked(s *session, pair bpf.Pair) {
	short := r.shortcut.remove(pair)
	long := r.plane.remove(pair)
	s.carried = s.carried.Plus(payload(long)).Plus(payload(short))
	s.counts = s.counts.plus(Totals{long, short})
}

// Traffic returns what a session's UDP legs have carried so far.
func (r *Relay) Traffic(id wire.SessionID) lease.Traffic {
	s := r.session(id)
	if s == nil {
		return lease.Traffic{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	here, short := r.trafficLocked(s)
	return here.Plus(short)
}

// Totals is what UDP legs have carried in user space, and in the kernel plane.
type Totals struct {
	User, Kernel bpf.Counters
}

func (t Totals) plus(u Totals) Totals { return Totals{t.User.Plus(u.User), t.Kernel.Plus(u.Kernel)} }

// Totals returns what the UDP legs of all sessions have carried, those that have ended
// included. What is moving from one session or pair to another may be missing for a
// moment; nothing is ever counted twice.
func (r *Relay) Totals() Totals {
	r.mu.RLock()
	total := r.past
	sessions := slices.Collect(maps.Values(r.sessions))
	r.mu.RUnlock()
	for _, s := range sessions {
		s.mu.Lock()
		total = total.plus(s.counts)
		for _, c := range s.connections {
			if p, ok := c.pair(); ok {
				total = total.plus(Totals{r.plane.counters(p), r.shortcut.counters(p)})
			}
		}
		s.mu.Unlock()
	}
	return total
}

// Settled returns what a session's UDP legs have carried so far, but for what
// the kernel plane has counted of the pairs that it holds: it counts on after a
// restart. See lease.Table.Settle.
func (r *Relay) Settled(id wire.SessionID) lease.Traffic {
	s := r.session(id)
	if s == nil {
		return lease.Traffic{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	here, _ := r.trafficLocked(s)
	return here
}

// trafficLocked returns what the kernel plane has counted of the pairs that it
// holds, and all the rest that the session has carried.
func (r *Relay) trafficLocked(s *session) (here, short lease.Traffic) {
	here = s.carried
	for _, c := range s.connections {
		if p, ok := c.pair(); ok {
			here = here.Plus(payload(r.plane.counters(p)))
			short = short.Plus(payload(r.shortcut.counters(p)))
		}
	}
	return here, short
}

func payload(c bpf.Counters) lease.Traffic { return lease.Traffic{c.FromA.Bytes, c.FromB.Bytes} }

func (r *Relay) session(id wire.SessionID) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[id]
}
