package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
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
	for _, s := range slices.Clone(b.byPair[pairOf(name, m.Peer)]) {
		if s.held {
			b.end(now, s, wire.ReasonReplaced, "") // the portal has no tunnel there
		} else if b.joins(now, s, ask) {
			return
		}
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
	s.asked[0] = requestOf(m)
	if !b.ask(now, s) {
		reason, text := b.noRelay()
		b.refuse(ask, reason, text)
	}
}

// asking is one request, for the answer and the record.
type asking struct {
	name    string
	m       wire.OpenSession
	forward string
}

func requestOf(m wire.OpenSession) request {
	return request{number: m.Request, transports: m.Transports, candidates: m.Candidates}
}

// joins answers a request from the session that the pair has, if it can. If it
// cannot, the session is ended and another is to be opened.
func (b *Broker) joins(now time.Time, s *session, ask asking) bool {
	side := s.side(ask.name)
	if s.open {
		return b.joinsOpen(now, s, side, ask)
	}
	switch mine := s.asked[side]; {
	case mine.number == ask.m.Request:
		return true // said twice; one answer will do
	case mine.number != 0:
		b.refuse(ask, wire.ReasonBusy, "a request for this portal is under way")
		return true
	}
	// Both asked at once.
	if ask.name > s.names[0] {
		s.asked[side] = requestOf(ask.m)
		b.portals[ask.name].pending++
		return true
	}
	b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonReplaced})
	b.remove(s)
	turned := &session{
		names: [2]string{s.names[1], s.names[0]}, grant: ask.m.Grant, forward: ask.forward,
		asked: [2]request{requestOf(ask.m), s.asked[0]}, tried: s.tried,
	}
	if !b.ask(now, turned) {
		reason, text := b.noRelay()
		b.answerRefused(turned, reason, text)
	}
	return true
}

// joinsOpen answers a request that crossed the session on its way. Any later
// one means that the portal has no tunnel there.
func (b *Broker) joinsOpen(now time.Time, s *session, side int, ask asking) bool {
	r := b.relays[s.relay]
	if r != nil && r.online && s.epochs[side] == b.portals[ask.name].epoch && now.Sub(s.opened) < crossing {
		b.tell(s, side, ask.m.Request)
		b.record(s, audit.Granted, ask.name, "the session that was just opened")
		return true
	}
	b.end(now, s, wire.ReasonReplaced, "")
	return false
}

// ask sends s to the best relay that was not tried yet. If there is none it
// returns false, and s is not known.
func (b *Broker) ask(now time.Time, s *session) bool {
	r := b.pick(now, s.tried)
	if r == nil {
		return false
	}
	s.id, s.relay, s.deadline = wire.NewSessionID(), r.name, now.Add(AskTimeout)
	s.transports = s.asked[0].transports & r.ready.Transports
	if other := s.asked[1]; other.number != 0 {
		s.transports &= other.transports
	}
	create := wire.CreateSession{ID: s.id, Lifetime: uint32(SessionLifetime / time.Second), Transports: s.transports}
	for i, n := range s.names {
		s.secrets[i] = wire.NewSecret()
		create.Legs[i] = wire.Leg{Portal: n, Secret: s.secrets[i], Source: b.portals[n].address}
	}
	b.add(s)
	b.toRelay(r.name, create)
	return true
}

// again asks the next relay, or refuses who asked.
func (b *Broker) again(now time.Time, s *session) {
	b.remove(s)
	s.tried[s.relay] = true
	if !b.ask(now, s) {
		reason, text := b.noRelay()
		b.answerRefused(s, reason, text)
	}
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
	for i := range s.names {
		b.tell(s, i, s.asked[i].number)
	}
	b.record(s, audit.Granted, s.names[0], "")
}

// tell tells one side of its session.
func (b *Broker) tell(s *session, side int, number uint32) {
	access := s.access
	access.Packet = s.packet[side]
	b.toPortal(s.names[side], wire.Session{
		Request: number, ID: s.id, Leg: uint8(side), Secret: s.secrets[side], Peer: s.names[1-side],
		Relay: access, Lifetime: uint32(SessionLifetime / time.Second),
		Transports: s.transports, Candidates: s.asked[1-side].candidates,
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
	if !s.held {
		r.Grant = &grant
	}
	return r
}
