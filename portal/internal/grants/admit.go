package grants

import (
	"errors"
	"fmt"
	"slices"
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

// reasonOf returns the reason of a *Refused.
func reasonOf(err error) wire.Reason {
	if r, ok := errors.AsType[*Refused](err); ok {
		return r.Reason
	}
	return wire.ReasonInternal
}

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
//
// The id tells the pair. Whose it is, is decided by the peer's key: a valid grant
// of the pair must name it, this one or another.
func (s *Set) Admit(now time.Time, peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	g, err := s.admit(now, peer, id, signed)
	if err != nil {
		s.refused(now, g, peer.ID.Name, err)
		return grant.Grant{}, err
	}
	return g, nil
}

// admit is Admit. Beside an error it returns the grant that the error is about,
// as far as that is known.
func (s *Set) admit(now time.Time, peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	if _, known := s.ids[id]; !known {
		if g, err := s.takeAhead(now, peer, id, signed); err != nil {
			return g, err
		}
	}
	key := s.ids[id]
	p := s.pairs[key]
	if err := s.between(peer, key); err != nil {
		return grant.Grant{}, err
	}
	if !p.leaving.IsZero() {
		return p.current, refuse(wire.ReasonGrantRemoved, "the grant for %s was removed", key.Target)
	}
	if h := p.held[id]; !s.names(now, p, peer.Key) && h != nil {
		// Its stamp is over; the peer may have a fresher one.
		if g, err := s.parse(id, signed); err == nil && g.Valid(now) == wire.ReasonNone {
			h.grant, h.asked, s.moved = g, time.Time{}, true
			s.settle(now, key)
		}
	}
	best, some := s.best(now, p)
	switch {
	case some && s.names(now, p, peer.Key):
		return best, nil
	case some:
		if h := p.held[id]; h != nil && h.grant.Entry.Key == peer.Key {
			return h.grant, refuse(h.grant.Valid(now), "the grant for %s with the key that %s has proven does not hold now, by the clock here", key.Target, peer.ID.Name)
		}
		return best, refuse(wire.ReasonNotGranted, "no valid grant for %s names the key %v that %s has proven", key.Target, peer.Key, peer.ID.Name)
	}
	return p.current, refuse(p.why(now), "the grant for %s does not hold now, by the clock here", key.Target)
}

// names reports whether a valid grant of a pair names a key of the other
// portal.
func (s *Set) names(now time.Time, p *pair, key identity.KeyHash) bool {
	for _, h := range p.held {
		if s.otherParty(h.grant.Permission).Key == key && h.grant.Valid(now) == wire.ReasonNone {
			return true
		}
	}
	return false
}

// takeAhead takes a grant that is not held from the peer that shows it.
func (s *Set) takeAhead(now time.Time, peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	if len(signed) == 0 {
		return grant.Grant{}, refuse(wire.ReasonNotGranted, "this portal holds no grant %v, and the peer has shown none", id)
	}
	g, err := s.parse(id, signed)
	if err != nil {
		return g, err
	}
	pair := PairOf(g.Permission)
	if err := s.between(peer, pair); err != nil {
		return g, err
	}
	if !s.is(g.Exit) {
		return g, refuse(wire.ReasonNotGranted, "grant %q is for the key %v of this portal, which is not one of its own now", g.Forward, g.Exit.Key)
	}
	// The key it names may be the peer's next one, if another names that of now.
	if p := s.pairs[pair]; g.Entry.Key != peer.Key && (p == nil || !s.names(now, p, peer.Key)) {
		return g, refuse(wire.ReasonNotGranted, "grant %q is for the entry %s with key %v, the peer has key %v", g.Forward, g.Entry.Name, g.Entry.Key, peer.Key)
	}
	if r := g.Valid(now); r != wire.ReasonNone {
		return g, refuse(r, "grant %q does not hold now, by the clock here", g.Forward)
	}
	if g.Version <= s.completed.Version || s.removed[id] {
		return g, refuse(wire.ReasonGrantRemoved, "grant %q of policy version %d was removed", g.Forward, g.Version)
	}
	if !s.hold(g, held{grant: g, ahead: true}) {
		return g, refuse(wire.ReasonBusy, "this portal holds %d grants already, no more are taken", maxHeld)
	}
	s.settle(now, pair)
	return g, nil
}

// Names reports whether a valid grant of the pair of a grant names a key of
// another portal.
func (s *Set) Names(now time.Time, id wire.GrantID, peer string, key identity.KeyHash) bool {
	pair, known := s.ids[id]
	return known && s.other(pair) == peer && s.names(now, s.pairs[pair], key)
}

// NamesAny reports whether any valid grant names a key of another portal, and
// whether any grant joins the two at all.
func (s *Set) NamesAny(now time.Time, peer string, key identity.KeyHash) (named, joined bool) {
	for pair, p := range s.pairs {
		if s.other(pair) != peer {
			continue
		}
		if keys := s.keysOf(now, p); len(keys) > 0 {
			named, joined = named || slices.Contains(keys, key), true
		}
	}
	return named, joined
}

// parse reads a grant that a peer has shown and checks its signatures. What could
// be read is returned with an error too.
func (s *Set) parse(id wire.GrantID, signed []byte) (grant.Grant, error) {
	g, err := grant.Parse(signed)
	if err != nil {
		return grant.Grant{}, refuse(wire.ReasonProtocol, "read the peer's grant: %v", err)
	}
	if g.ID() != id {
		return g, refuse(wire.ReasonProtocol, "the peer's grant is %v, it says %v", g.ID(), id)
	}
	if r := s.verify(g); r != wire.ReasonNone {
		return g, refuse(r, "grant %q that the peer has shown: %v", g.Forward, r)
	}
	return g, nil
}

// between checks that a pair is the peer's by name, towards this portal. Somebody
// else's grant is as good as none, and the peer is told no more than that.
func (s *Set) between(peer identity.Peer, key Pair) error {
	if key.Exit != s.self.Name {
		return refuse(wire.ReasonNotGranted, "the grant is for the exit %s, not for this portal", key.Exit)
	}
	if peer.ID.Role != identity.Portal || key.Entry != peer.ID.Name {
		return refuse(wire.ReasonNotGranted, "the grant is for the entry %s, the peer is the %s %s", key.Entry, peer.ID.Role, peer.ID.Name)
	}
	return nil
}
