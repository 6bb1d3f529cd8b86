package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/couple"
)

// Open handles the request of a portal, which is connected.
func (b *Broker) Open(now time.Time, name string, m wire.OpenSession) {
	forward, reason := b.grants.Look(m.Grant, name, m.Peer, now)
	ask := asking{name: name, m: m, forward: forward}
	if reason != wire.ReasonNone {
		b.refuse(ask, reason, "")
		return
	}
	p, peer := b.portals[name], b.portals[m.Peer]
	if peer == nil || !peer.online {
		b.refuse(ask, wire.ReasonPeerOffline, "the portal "+m.Peer+" is not connected to the server")
		return
	}
	b.doubt(now, ask)
	if b.meets(now, ask) {
		return
	}
	switch {
	case p.pending >= MaxPending:
		b.refuse(ask, wire.ReasonBusy, "too many requests at once")
		return
	case p.sessions >= b.maxSessions:
		b.refuse(ask, wire.ReasonBusy, "too many sessions of "+name)
		return
	case peer.sessions >= b.maxSessions:
		b.refuse(ask, wire.ReasonBusy, "too many sessions of "+m.Peer)
		return
	}
	s := &session{names: [2]string{name, m.Peer}, grant: m.Grant, forward: forward, tried: make(map[string]bool)}
	s.asked[0], s.lost[0] = requestOf(m), m.Lost
	s.able = m.Transports
	if !b.ask(now, s) {
		reason, text := b.noRelay(now, s)
		b.refuse(ask, reason, text)
	}
}

// doubt asks a relay for a sign of life at which two portals have just lost each
// other: if its machine has died, others are not sent there.
func (b *Broker) doubt(now time.Time, ask asking) {
	r := b.relays[ask.m.Lost]
	if r == nil || !r.online || now.Sub(r.probed) < probePause {
		return
	}
	for _, s := range b.byPair[couple.Of(ask.name, ask.m.Peer)] {
		if s.relay == r.name {
			r.probed = now
			b.out.ProbeRelay(r.name)
			return
		}
	}
}

// meets answers a request from what the pair has, and reports whether it could.
// If not, what the pair had has ended: the portal has no carrier there.
func (b *Broker) meets(now time.Time, ask asking) bool {
	list := slices.Clone(b.byPair[couple.Of(ask.name, ask.m.Peer)])
	for _, s := range list {
		if !s.open {
			b.joins(now, s, ask)
			return true
		}
	}
	for _, s := range list {
		if !s.held && !s.left && b.crossed(now, s, ask) {
			b.tell(s, s.side(ask.name), ask.m.Request)
			b.record(s, audit.Granted, ask.name, "the session that was just opened")
			return true
		}
	}
	for _, s := range list {
		b.end(now, s, wire.ReasonReplaced, "")
	}
	return false
}

// crossed reports whether a request may have crossed the word of the session on
// its way. Any later one means that the portal has no carrier there, as does one that
// has just lost the other portal at the relay of this very session.
func (b *Broker) crossed(now time.Time, s *session, ask asking) bool {
	r := b.relays[s.relay]
	return r != nil && r.online && ask.m.Lost != s.relay &&
		s.epochs[s.side(ask.name)] == b.portals[ask.name].epoch && now.Sub(s.opened) < crossing
}

// asking is one request, for the answer and the record.
type asking struct {
	name    string
	m       wire.OpenSession
	forward string
}

func requestOf(m wire.OpenSession) request {
	return request{number: m.Request, transports: m.Transports}
}

// joins adds a request to the session that is being asked for.
func (b *Broker) joins(now time.Time, s *session, ask asking) {
	side := s.side(ask.name)
	switch mine := s.asked[side]; {
	case mine.number == ask.m.Request:
		return // said twice; one answer will do
	case mine.number != 0:
		b.refuse(ask, wire.ReasonBusy, "a request for this portal is under way")
		return
	}
	// Both asked at once; in a move each keeps its side.
	turn := s.replaces.IsZero() && ask.name < s.names[0]
	if !turn && ask.m.Lost != s.relay {
		s.asked[side], s.lost[side] = requestOf(ask.m), ask.m.Lost
		b.portals[ask.name].pending++
		return
	}
	b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonReplaced})
	b.remove(s)
	anew := &session{
		names: s.names, grant: ask.m.Grant, forward: ask.forward, asked: s.asked, lost: s.lost,
		able: s.able & ask.m.Transports, tried: s.tried, replaces: s.replaces,
	}
	anew.asked[side], anew.lost[side] = requestOf(ask.m), ask.m.Lost
	if turn {
		anew.names = [2]string{anew.names[1], anew.names[0]}
		anew.asked = [2]request{anew.asked[1], anew.asked[0]}
		anew.lost = [2]string{anew.lost[1], anew.lost[0]}
	}
	b.askOrRefuse(now, anew)
}

// ask sends s to the best relay that was not tried yet. If there is none it
// returns false, and s is not known.
func (b *Broker) ask(now time.Time, s *session) bool {
	r := b.pick(now, s)
	if r == nil {
		return false
	}
	s.id, s.relay, s.deadline = wire.NewSessionID(), r.name, now.Add(AskTimeout)
	s.transports = s.able & r.ready.Transports
	create := wire.CreateSession{ID: s.id, Lifetime: uint32(SessionLifetime / time.Second), Transports: s.transports}
	for i, n := range s.names {
		p := b.portals[n]
		s.secrets[i], s.trips[i] = wire.NewSecret(), p.times[r.name]
		create.Legs[i] = wire.Leg{Portal: n, Secret: s.secrets[i], Source: p.address}
	}
	b.add(s)
	b.toRelay(r.name, create)
	return true
}

// again asks the next relay, or refuses who asked.
func (b *Broker) again(now time.Time, s *session) {
	b.remove(s)
	s.tried[s.relay] = true
	b.askOrRefuse(now, s)
}

func (b *Broker) askOrRefuse(now time.Time, s *session) {
	if b.ask(now, s) {
		return
	}
	if old := b.sessions[s.replaces]; old != nil {
		old.pause = now.Add(movePause)
	}
	reason, text := b.noRelay(now, s)
	b.answerRefused(s, reason, text)
}

// fail gives up an asking session.
func (b *Broker) fail(s *session, reason wire.Reason) {
	b.remove(s)
	b.answerRefused(s, reason, "")
}

// answerRefused refuses every side of s that asked; s is not known any more.
func (b *Broker) answerRefused(s *session, reason wire.Reason, text string) {
	for i, r := range s.asked {
		if r.number != 0 {
			m := wire.OpenSession{Request: r.number, Peer: s.names[1-i], Grant: s.grant}
			b.refuse(asking{name: s.names[i], m: m, forward: s.forward}, reason, text)
		}
	}
}

// refuse answers one request and records it.
func (b *Broker) refuse(ask asking, reason wire.Reason, text string) {
	b.toPortal(ask.name, wire.Refused{Request: ask.m.Request, Reason: reason, Text: text})
	b.out.Record(audit.Record{
		Event: "session", Answer: audit.Refused, Reason: reason.String(),
		Portal: ask.name, Peer: ask.m.Peer, Grant: &ask.m.Grant, Forward: ask.forward,
	})
}

// openAt tells both portals, at the same time, that the relay waits for them.
func (b *Broker) openAt(now time.Time, s *session, access wire.RelayAccess) {
	for i, n := range s.names {
		if s.asked[i].number != 0 {
			b.portals[n].pending--
		}
		s.epochs[i] = b.portals[n].epoch
	}
	s.open, s.opened, s.access, s.confirmed, s.tried = true, now, access, true, nil
	detail := ""
	if old := b.sessions[s.replaces]; old != nil {
		old.left = true
		detail = "in the place of session " + old.id.String() + " at " + old.relay
	}
	for i := range s.names {
		b.tell(s, i, s.asked[i].number)
	}
	b.record(s, audit.Granted, s.names[0], detail)
}

// tell tells one side of its session.
func (b *Broker) tell(s *session, side int, number uint32) {
	access := s.access
	access.Packet = s.packet[side]
	b.toPortal(s.names[side], wire.Session{
		Request: number, ID: s.id, Leg: uint8(side), Secret: s.secrets[side], Peer: s.names[1-side],
		Relay: access, Lifetime: uint32(SessionLifetime / time.Second),
		Transports: s.transports, Replaces: s.replaces,
	})
}

func (b *Broker) record(s *session, answer, who, detail string) {
	r := recordOf(s, answer)
	if who == s.names[1] {
		r.Portal, r.Peer = s.names[1], s.names[0]
	}
	r.Detail = detail
	b.out.Record(r)
}

func recordOf(s *session, answer string) audit.Record {
	id, grant := s.id, s.grant
	r := audit.Record{
		Event: "session", Answer: answer, Portal: s.names[0], Peer: s.names[1],
		Forward: s.forward, Session: &id, Relay: s.relay,
	}
	if !grant.IsZero() { // of a held session it is not known
		r.Grant = &grant
	}
	return r
}
