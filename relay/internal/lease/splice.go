package lease

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
)

// Prove judges a preface that came from source at port (0: the shared port).
// None means that the leg is proven: its connection may wait for the other leg, in
// the place of an older one of the same leg and number. From then on the leg
// may also come from that address in packet mode.
func (t *Table) Prove(now time.Time, p leg.Preface, source netip.AddrPort, port uint16) drop.Reason {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, why := t.findLocked(now, p.ID.Session, port)
	if why != drop.None {
		return why
	}
	if !p.ProvenBy(s.secrets[p.ID.Leg]) {
		return drop.WrongMAC
	}
	if p.ID.Connection == leg.Meeting {
		return t.meetLocked(now, s, p, source)
	}
	if s.Ticket() {
		return drop.Limit // numbers would begin anew with each tunnel, and so could replays
	}
	number := uint32(p.ID.Connection)
	if number < s.usedUp {
		return drop.Joined
	}
	c, ok := s.splices[p.ID.Connection]
	if !ok {
		if len(s.splices) >= MaxConnections {
			return drop.Limit
		}
		c = &spliced{}
		if s.splices == nil {
			s.splices = make(map[uint16]*spliced)
		}
		s.splices[p.ID.Connection] = c
	}
	nonces := c.nonces[p.ID.Leg]
	switch {
	case c.joined:
		return drop.Joined
	case slices.Contains(nonces, p.Nonce):
		return drop.Replayed
	case len(nonces) >= maxTries:
		return drop.Limit
	}
	c.nonces[p.ID.Leg] = append(nonces, p.Nonce)
	kept := s.proven && number < s.next
	s.next = max(s.next, number+1)
	s.provenLocked(now)
	if t.admitLocked(s, p.ID.Leg, source.Addr()) || !kept {
		t.keepLocked(s)
	}
	return drop.None
}

// meetLocked judges a proven preface of number Meeting.
func (t *Table) meetLocked(now time.Time, s *session, p leg.Preface, source netip.AddrPort) drop.Reason {
	last := &s.meetings[p.ID.Leg]
	if p.Counter() <= *last {
		return drop.Replayed
	}
	*last = p.Counter()
	s.provenLocked(now)
	t.admitLocked(s, p.ID.Leg, source.Addr())
	t.keepLocked(s)
	return drop.None
}

// Join tells that both legs of a connection are proven and are joined now, which
// uses up its number unless it is Meeting. It reports whether the session is still
// there and the number was not used before.
func (t *Table) Join(id leg.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id.Session]
	if !ok {
		return false
	}
	if id.Connection == leg.Meeting {
		s.met++
		return true
	}
	c, ok := s.splices[id.Connection]
	if !ok || c.joined {
		return false
	}
	*c = spliced{joined: true}
	return true
}
