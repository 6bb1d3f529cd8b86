package lease

import (
	"net/netip"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
)

// boundAt is a source at a UDP port of the relay. Port 0 is the shared one.
type boundAt struct {
	source netip.AddrPort
	port   uint16
}

// Outcome is what comes of a bind request. Answer is nil where the relay keeps
// silent; Drop then says why.
type Outcome struct {
	Drop   drop.Reason
	Answer []byte
	// Moved says that the leg is now bound to the source of the request, at
	// the port where it came.
	Moved bool
}

// Bind judges a bind request that came from a leg's address at one of the
// relay's, at the session's own port or the shared one. From when it is bound the
// leg may also come from that address in packet mode.
func (t *Table) Bind(now time.Time, q leg.Request, from bpf.Leg, shared bool) Outcome {
	source, port := from.Remote, from.Port
	if shared {
		port = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, why := t.findLocked(now, q.ID.Session, port)
	if why != drop.None {
		return Outcome{Drop: why}
	}
	var last leg.Binding
	b, again := s.binds[q.ID]
	if again {
		last = b.Binding
	}
	verdict, answer := t.gate.Judge(now, q, source, s.secrets[q.ID.Leg], last)
	if verdict != leg.Bind {
		return outcome(verdict, answer)
	}
	if !again && len(s.binds) >= 2*MaxBound {
		return Outcome{Drop: drop.Limit}
	}
	if t.takenLocked(s, q.ID, boundAt{source, port}) {
		return Outcome{Drop: drop.SourceTaken}
	}
	t.releaseSourceLocked(q.ID, last.Source)
	if port == 0 {
		t.sources[boundAt{source, 0}] = q.ID
	}
	s.bind(q.ID, bound{leg.Binding{Counter: q.Counter, Source: source}, from, shared})
	kept := s.proven
	s.provenLocked(now)
	if t.admitLocked(s, q.ID.Leg, source.Addr()) || !kept {
		t.keepLocked(s)
	}
	t.keepBindLocked(s, q.ID)
	return Outcome{Answer: answer, Moved: true}
}

// outcome is what comes of a request that binds nothing.
func outcome(verdict leg.Verdict, answer []byte) Outcome {
	switch verdict {
	case leg.WrongMAC:
		return Outcome{Drop: drop.WrongMAC}
	case leg.OldCounter:
		return Outcome{Drop: drop.Replayed}
	case leg.WrongNonce:
		return Outcome{Drop: drop.WrongNonce}
	case leg.TooMany:
		return Outcome{Drop: drop.Limit}
	}
	return Outcome{Answer: answer}
}

// bind sets where a connection of a leg is.
func (s *session) bind(id leg.ID, at bound) {
	if b, ok := s.binds[id]; ok {
		*b = at
		return
	}
	if s.binds == nil {
		s.binds = make(map[leg.ID]*bound)
	}
	s.binds[id] = &at
	s.order = append(s.order, id)
}

// Bound is a connection of a UDP leg that is bound, and where.
type Bound struct {
	ID leg.ID
	At bpf.Leg
}

// BoundAtShared returns the leg that is bound to a source at the shared UDP port.
func (t *Table) BoundAtShared(source netip.AddrPort) (leg.ID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.sources[boundAt{source, 0}]
	return id, ok
}

// takenLocked reports whether another leg is bound to the same source: of this
// session at any port, so that no session is joined with itself, or of any
// session at the shared port.
func (t *Table) takenLocked(s *session, id leg.ID, at boundAt) bool {
	for other, b := range s.binds {
		if other != id && b.Source == at.source {
			return true
		}
	}
	if at.port != 0 {
		return false
	}
	holder, ok := t.sources[at]
	return ok && holder != id
}

// releaseSourceLocked frees the source that a leg holds at the shared port, if
// it does.
func (t *Table) releaseSourceLocked(id leg.ID, source netip.AddrPort) {
	at := boundAt{source, 0}
	if t.sources[at] == id {
		delete(t.sources, at)
	}
}
