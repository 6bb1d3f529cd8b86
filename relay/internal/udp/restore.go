package udp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

// State is what is to be kept of a session's UDP legs, so that a later Relay can
// go on with them.
type State struct {
	Bound []Bound // by leg and connection
	// Carried is all that the legs have carried, but for what the kernel plane
	// has counted of pairs that it still holds.
	Carried lease.Traffic
}

// Bound is a bound leg and where.
type Bound struct {
	ID leg.ID
	At bpf.Leg
}

// State returns the state of a session; the zero State if it does not exist.
// What is held for a leg that is not bound is no part of it.
func (r *Relay) State(id wire.SessionID) State {
	s := r.session(id)
	if s == nil {
		return State{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var st State
	st.Carried, _ = r.trafficLocked(s)
	for at, id := range s.legs {
		st.Bound = append(st.Bound, Bound{ID: id, At: at})
	}
	slices.SortFunc(st.Bound, func(a, b Bound) int {
		return cmp.Or(cmp.Compare(a.ID.Connection, b.ID.Connection), cmp.Compare(a.ID.Leg, b.ID.Leg))
	})
	return st
}

// Restore opens a session that another Relay has left, as Open does, with its
// legs bound as they were. Pairs that the kernel plane holds go on there with
// their counters. A leg that cannot be restored has to bind anew, as its portal
// does when it hears nothing; the log says why.
func (r *Relay) Restore(s lease.Session, st State) error {
	n, err := r.open(s)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carried = st.Carried
	for _, b := range st.Bound {
		if err := r.restoreLocked(n, b); err != nil {
			r.cfg.Log.Warn("leg not restored", "session", s.ID, "leg", b.ID.Leg, "remote", b.At.Remote, "error", err)
		}
	}
	return nil
}

func (r *Relay) restoreLocked(n *session, b Bound) error {
	if b.ID.Session != n.ID || b.ID.Leg > 1 {
		return fmt.Errorf("restore leg %v: it is of another session", b.ID)
	}
	if !r.cfg.Sources.Allows(b.At.Remote) {
		return fmt.Errorf("restore leg %v: its source is refused", b.ID)
	}
	for _, s := range append(slices.Clip(n.sockets), r.shared...) {
		if s.port == b.At.Port && s.hears(b.At) {
			return r.moveLocked(n, b.ID, b.At, s)
		}
	}
	return fmt.Errorf("restore leg %v: port %d of %v is not open any more", b.ID, b.At.Port, b.At.Local)
}

// hears reports whether packets of a leg come to a listening socket.
func (s *socket) hears(l bpf.Leg) bool {
	switch s.address {
	case netip.IPv6Unspecified():
		return true
	case netip.IPv4Unspecified():
		return l.Remote.Addr().Is4()
	}
	return s.address == l.Local
}
