package broker

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/couple"
)

var (
	start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ready = wire.RelayReady{First: 20000, Last: 20999, SharedTCP: 443, Capacity: 100, Transports: wire.TransportSplice | wire.TransportUDP}
)

// script drives a broker and looks at what it sends, in order.
type script struct {
	t       *testing.T
	b       *Broker
	now     time.Time
	grants  map[wire.GrantID][3]string // two portals and a forward
	expired map[wire.GrantID]bool
	pins    map[couple.Portals]string
	sent    []sent
	probed  []string // relays
	records []audit.Record
}

type sent struct {
	to string // "portal ann", "relay r1"
	m  wire.Message
}

func newScript(t *testing.T, maxSessions int) *script {
	s := &script{t: t, now: start, grants: make(map[wire.GrantID][3]string), expired: make(map[wire.GrantID]bool), pins: make(map[couple.Portals]string)}
	s.b = New(s, s, maxSessions)
	return s
}

// annAndPlant returns a script with two portals, a grant that joins them, and
// relays that are ready.
func annAndPlant(t *testing.T, relays ...string) (s *script, id wire.GrantID) {
	s = newScript(t, 10)
	id = s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	for _, r := range relays {
		s.relay(r, ready)
	}
	return s, id
}

// Grants.

func (s *script) Look(id wire.GrantID, a, b string, _ time.Time) (string, wire.Reason) {
	g, ok := s.grants[id]
	switch {
	case !ok || !(g[0] == a && g[1] == b || g[0] == b && g[1] == a):
		return "", wire.ReasonNotGranted
	case s.expired[id]:
		return g[2], wire.ReasonGrantExpired
	}
	return g[2], wire.ReasonNone
}

func (s *script) Joined(a, b string, now time.Time) bool {
	for id := range s.grants {
		if _, reason := s.Look(id, a, b, now); reason == wire.ReasonNone {
			return true
		}
	}
	return false
}

func (s *script) Pin(a, b string, _ time.Time) string { return s.pins[couple.Of(a, b)] }

// Outlet.

func (s *script) ToPortal(name string, m wire.ToPortal) {
	s.sent = append(s.sent, sent{"portal " + name, m})
}
func (s *script) ToRelay(name string, m wire.ToRelay) {
	s.sent = append(s.sent, sent{"relay " + name, m})
}
func (s *script) ProbeRelay(name string) { s.probed = append(s.probed, name) }
func (s *script) DropRelay(name, text string) {
	s.sent = append(s.sent, sent{"relay " + name, wire.Goodbye{Reason: wire.ReasonProtocol, Text: text}})
}
func (s *script) Record(r audit.Record) { s.records = append(s.records, r) }

// The steps of a script.

func (s *script) grant(n byte, a, b string) wire.GrantID {
	id := wire.GrantID{n}
	s.grants[id] = [3]string{a, b, fmt.Sprintf("forward-%d", n)}
	return id
}

func (s *script) portals(names ...string) {
	for i, n := range names {
		s.b.PortalUp(n, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
	}
}

func (s *script) relay(name string, offer wire.RelayReady) {
	s.relayAt(name, "198.51.100.1", offer)
	// What relays are told of each other has a test of its own.
	s.sent = slices.DeleteFunc(s.sent, func(m sent) bool {
		_, others := m.m.(wire.OtherRelays)
		return others
	})
}

// relayAt connects a relay and leaves what it is told.
func (s *script) relayAt(name, address string, offer wire.RelayReady) {
	s.b.RelayUp(s.now, name, []netip.Addr{netip.MustParseAddr(address)})
	s.b.FromRelay(s.now, name, offer)
}

func (s *script) open(name, peer string, id wire.GrantID, number uint32) {
	s.b.Open(s.now, name, wire.OpenSession{Request: number, Peer: peer, Grant: id, Transports: wire.TransportSplice})
}

func (s *script) after(d time.Duration) {
	s.now = s.now.Add(d)
	s.b.Tick(s.now)
}

// want takes the next message and checks who gets it and what it is.
func want[M wire.Message](s *script, to string) M {
	s.t.Helper()
	if len(s.sent) == 0 {
		var m M
		s.t.Fatalf("nothing was sent, want %T to %s", m, to)
	}
	next := s.sent[0]
	m, ok := next.m.(M)
	if !ok || next.to != to {
		s.t.Fatalf("sent %#v to %s, want %T to %s", next.m, next.to, m, to)
	}
	s.sent = s.sent[1:]
	return m
}

func (s *script) wantIdle() {
	s.t.Helper()
	if len(s.sent) > 0 {
		s.t.Fatalf("sent %#v to %s, want nothing", s.sent[0].m, s.sent[0].to)
	}
}

func (s *script) wantRefused(name string, number uint32, reason wire.Reason) {
	s.t.Helper()
	m := want[wire.Refused](s, "portal "+name)
	if m.Request != number || m.Reason != reason {
		s.t.Fatalf("%s: request %d refused: %v, want request %d: %v", name, m.Request, m.Reason, number, reason)
	}
}

// wantTold takes what both portals are told of a session, and returns its id.
func (s *script) wantTold(opener, other string, numbers [2]uint32) wire.SessionID {
	s.t.Helper()
	a := want[wire.Session](s, "portal "+opener)
	b := want[wire.Session](s, "portal "+other)
	if a.ID != b.ID || a.Leg != 0 || b.Leg != 1 || a.Peer != other || b.Peer != opener || a.Secret == b.Secret {
		s.t.Fatalf("told %+v and %+v", a, b)
	}
	if got := [2]uint32{a.Request, b.Request}; got != numbers {
		s.t.Fatalf("answers to requests %v, want %v", got, numbers)
	}
	return a.ID
}

// times says how far a portal is from relays, in milliseconds; 0: no answer.
func (s *script) times(portal string, trips map[string]int) {
	var m wire.RelayTimes
	for relay, ms := range trips {
		m.Times = append(m.Times, wire.RelayTime{Relay: relay, Time: time.Duration(ms) * time.Millisecond})
	}
	s.b.Times(portal, m)
}

// wantAsked takes the question to a relay and answers it.
func (s *script) wantAsked(relay string) wire.SessionID {
	s.t.Helper()
	create := want[wire.CreateSession](s, "relay "+relay)
	s.b.FromRelay(s.now, relay, wire.SessionReady{ID: create.ID, TCP: 20005})
	return create.ID
}

// meet opens a session and takes all its messages.
func (s *script) meet(opener, other string, id wire.GrantID, relay string) wire.SessionID {
	s.t.Helper()
	s.open(opener, other, id, 7)
	asked := s.wantAsked(relay)
	told := s.wantTold(opener, other, [2]uint32{7, 0})
	if told != asked {
		s.t.Fatalf("told session %v, the relay holds %v", told, asked)
	}
	return told
}

// wantEmpty checks that nothing is left of any session.
func (s *script) wantEmpty() {
	s.t.Helper()
	if len(s.b.sessions)+len(s.b.byPair) > 0 {
		s.t.Errorf("%d sessions and %d pairs are left", len(s.b.sessions), len(s.b.byPair))
	}
	for name, p := range s.b.portals {
		if p.sessions != 0 || p.pending != 0 {
			s.t.Errorf("%s: %d sessions and %d requests are left", name, p.sessions, p.pending)
		}
	}
	for name, r := range s.b.relays {
		if r.ours != 0 {
			s.t.Errorf("relay %s: %d sessions are left", name, r.ours)
		}
	}
}

func (s *script) lastRecord() audit.Record {
	s.t.Helper()
	if len(s.records) == 0 {
		s.t.Fatal("nothing was recorded")
	}
	return s.records[len(s.records)-1]
}
