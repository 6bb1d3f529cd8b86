package grants

import (
	"fmt"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Refused says why a peer is not admitted. Reason is what it may be told;
// Detail is for this portal's own log.
type Refused struct {
	Reason wire.Reason
	Detail string
}

func (r *Refused) Error() string { return r.Detail }

func refuse(reason wire.Reason, format string, args ...any) error {
	return &Refused{reason, fmt.Sprintf(format, args...)}
}

// Admit decides whether the proven peer may open something under the grant id
// now, with this portal as the exit, and returns the grant that counts. signed
// is the grant as the peer has shown it, or empty. The error is a *Refused.
//
// A grant that is not held is taken from the peer if both its signatures are
// right and its policy version is above the last one of which this portal has
// every grant: then the entry has heard of a change earlier than the exit. All
// others that are not held were removed.
func (s *Set) Admit(now time.Time, peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	key, known := s.ids[id]
	if !known {
		return s.admitAhead(now, peer, id, signed)
	}
	p := s.pairs[key]
	if err := s.between(peer, key); err != nil {
		return grant.Grant{}, err
	}
	if !p.leaving.IsZero() {
		return grant.Grant{}, refuse(wire.ReasonGrantRemoved, "the grant for %s was removed", key.Target)
	}
	if p.running && p.current.Valid(now) == wire.ReasonNone {
		return p.current, nil
	}
	// Its stamp is over; the peer may have a fresher one.
	h := p.held[id]
	if g, err := s.parse(id, signed); h != nil && err == nil && g.Valid(now) == wire.ReasonNone {
		h.grant, s.moved = g, true
		s.settle(now, key)
		return g, nil
	}
	return grant.Grant{}, refuse(wire.ReasonGrantExpired, "the grant for %s is over or not yet valid by the clock here", key.Target)
}

func (s *Set) admitAhead(now time.Time, peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	if len(signed) == 0 {
		return grant.Grant{}, refuse(wire.ReasonNotGranted, "this portal holds no grant %v, and the peer has shown none", id)
	}
	g, err := s.parse(id, signed)
	if err != nil {
		return grant.Grant{}, err
	}
	if err := s.between(peer, PairOf(g.Permission)); err != nil {
		return grant.Grant{}, err
	}
	if r := g.Valid(now); r != wire.ReasonNone {
		return grant.Grant{}, refuse(r, "grant %q is over or not yet valid by the clock here", g.Forward)
	}
	if g.Version <= s.completed || s.removed[id] {
		return grant.Grant{}, refuse(wire.ReasonGrantRemoved, "grant %q of policy version %d was removed", g.Forward, g.Version)
	}
	if !s.hold(g, held{grant: g, ahead: true}) {
		return grant.Grant{}, refuse(wire.ReasonBusy, "this portal holds %d grants already, no more are taken", maxHeld)
	}
	s.settle(now, PairOf(g.Permission))
	return g, nil
}

// parse reads a grant that a peer has shown and checks its signatures.
func (s *Set) parse(id wire.GrantID, signed []byte) (grant.Grant, error) {
	g, err := grant.Parse(signed)
	if err != nil {
		return grant.Grant{}, refuse(wire.ReasonProtocol, "read the peer's grant: %v", err)
	}
	if g.ID() != id {
		return grant.Grant{}, refuse(wire.ReasonProtocol, "the peer's grant is %v, it says %v", g.ID(), id)
	}
	if r := s.verify(g); r != wire.ReasonNone {
		return grant.Grant{}, refuse(r, "grant %q that the peer has shown: %v", g.Forward, r)
	}
	return g, nil
}

// between checks that a pair is the peer's, towards this portal. Somebody
// else's grant is as good as none, and the peer is told no more than that.
func (s *Set) between(peer identity.Peer, key Pair) error {
	if !key.Exit.Is(s.self) {
		return refuse(wire.ReasonNotGranted, "the grant is for the exit %s, not for this portal with its key of now", key.Exit.Name)
	}
	if !key.Entry.Is(peer) {
		return refuse(wire.ReasonNotGranted, "the grant is for the entry %s with key %v, the peer is %s with key %v", key.Entry.Name, key.Entry.Key, peer.ID.Name, peer.Key)
	}
	return nil
}
