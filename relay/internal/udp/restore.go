package udp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/lease"
)

// Restore opens a session that another process has left, as Open does, with its
// legs bound as they were. Pairs that the kernel plane holds go on there with
// their counters. A leg that cannot be restored has to bind anew, as its portal
// does when it hears nothing; the log says why.
func (r *Relay) Restore(s lease.Session, bound []lease.Bound) error {
	n, err := r.open(s)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range bound {
		if err := r.restoreLocked(n, b); err != nil {
			r.cfg.Log.Warn("leg not restored", "session", s.ID, "leg", b.ID.Leg, "connection", b.ID.Connection, "remote", b.At.Remote, "error", err)
		}
	}
	return nil
}

func (r *Relay) restoreLocked(n *session, b lease.Bound) error {
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
