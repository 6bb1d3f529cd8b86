package broker

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
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
	sent    []sent
	records []audit.Record
}

type sent struct {
	to string // "portal ann", "relay r1"
	m  wire.Message
}

func newScript(t *testing.T, maxSessions int) *script {
	s := &script{t: t, now: start, grants: make(map[wire.GrantID][3]string), expired: make(map[wire.GrantID]bool)}
	s.b = New(s, s, maxSessions)
	return s
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

// Outlet.

func (s *script) ToPortal(name string, m wire.ToPortal) {
	s.sent = append(s.sent, sent{"portal " + name, m})
}
func (s *script) ToRelay(name string, m wire.ToRelay) {
	s.sent = append(s.sent, sent{"relay " + name, m})
}
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
	s.b.RelayUp(s.now, name, []netip.Addr{netip.MustParseAddr("198.51.100.1")})
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

// meet opens a session and takes all its messages.
func (s *script) meet(opener, other string, id wire.GrantID, relay string) wire.SessionID {
	s.t.Helper()
	s.open(opener, other, id, 7)
	create := want[wire.CreateSession](s, "relay "+relay)
	s.b.FromRelay(s.now, relay, wire.SessionReady{ID: create.ID, TCP: 20005})
	told := s.wantTold(opener, other, [2]uint32{7, 0})
	if told != create.ID {
		s.t.Fatalf("told session %v, the relay holds %v", told, create.ID)
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

func TestSessionIsToldToBothPortalsAndRecorded(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	candidates := []netip.AddrPort{netip.MustParseAddrPort("10.1.1.1:4000")}
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 3, Peer: "plant", Grant: id, Transports: wire.TransportSplice | wire.TransportPacket, Candidates: candidates})
	create := want[wire.CreateSession](s, "relay r1")
	if create.Legs[0].Portal != "ann" || create.Legs[1].Portal != "plant" || create.Legs[1].Source != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("legs %+v", create.Legs)
	}
	s.wantIdle() // nobody is told before the relay is ready
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20005, UDP: 20006})
	got := want[wire.Session](s, "portal ann")
	wantSession := wire.Session{
		Request: 3, ID: create.ID, Leg: 0, Secret: create.Legs[0].Secret, Peer: "plant",
		Relay:    wire.RelayAccess{Name: "r1", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}, TCP: 20005, UDP: 20006, SharedTCP: 443},
		Lifetime: uint32(SessionLifetime / time.Second), Transports: wire.TransportSplice,
	}
	if d := cmp.Diff(wantSession, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("session of ann (-want +got):\n%s", d)
	}
	if m := want[wire.Session](s, "portal plant"); m.Request != 0 || m.Leg != 1 || m.Secret != create.Legs[1].Secret || !slices.Equal(m.Candidates, candidates) {
		t.Errorf("session of plant %+v", m)
	}
	s.wantIdle()
	r := s.lastRecord()
	if r.Answer != audit.Granted || r.Portal != "ann" || r.Peer != "plant" || r.Forward != "forward-1" || r.Relay != "r1" || *r.Session != create.ID {
		t.Errorf("record %+v", r)
	}
}

// A grant of others, one that is none, a peer that does not exist, one that is
// offline and not granted: all the same to who may not know.
func TestRefusalTellsOnlyTheHolderOfAGrantWhy(t *testing.T) {
	s := newScript(t, 10)
	mine, others, old := s.grant(1, "ann", "plant"), s.grant(2, "bo", "plant"), s.grant(3, "ann", "gone")
	s.expired[old] = true
	s.portals("ann", "bo", "cy")
	for _, c := range []struct {
		what       string
		name, peer string
		grant      wire.GrantID
		reason     wire.Reason
		text       bool
	}{
		{"own grant, peer offline", "ann", "plant", mine, wire.ReasonPeerOffline, true},
		{"own grant, ended", "ann", "gone", old, wire.ReasonGrantExpired, false},
		{"grant of another", "ann", "plant", others, wire.ReasonNotGranted, false},
		{"grant of another towards its holder", "cy", "bo", others, wire.ReasonNotGranted, false},
		{"own grant, other peer", "ann", "bo", mine, wire.ReasonNotGranted, false},
		{"own grant, towards itself", "ann", "ann", mine, wire.ReasonNotGranted, false},
		{"no grant", "cy", "plant", wire.GrantID{9}, wire.ReasonNotGranted, false},
		{"no such portal", "cy", "nobody", wire.GrantID{9}, wire.ReasonNotGranted, false},
		{"zero grant", "cy", "ann", wire.GrantID{}, wire.ReasonNotGranted, false},
	} {
		s.records = nil
		s.open(c.name, c.peer, c.grant, 1)
		m := want[wire.Refused](s, "portal "+c.name)
		if m.Reason != c.reason || (m.Text != "") != c.text {
			t.Errorf("%s: refused %v %q, want %v", c.what, m.Reason, m.Text, c.reason)
		}
		if r := s.lastRecord(); r.Answer != audit.Refused || r.Portal != c.name || r.Peer != c.peer {
			t.Errorf("%s: record %+v", c.what, r)
		}
	}
	s.wantIdle()
	s.wantEmpty()
}

func TestGrantedPeerWithoutRelay(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.open("ann", "plant", id, 1)
	s.wantRefused("ann", 1, wire.ReasonNoRelay)
	full := ready
	full.Capacity = 0
	s.relay("r1", full)
	s.open("plant", "ann", id, 2) // a grant joins two in either direction
	s.wantRefused("plant", 2, wire.ReasonRelayRefused)
	s.wantEmpty()
}

func TestLeastLoadedRelayIsPicked(t *testing.T) {
	s := newScript(t, 10)
	s.portals("a", "b", "c", "d", "e", "f", "g", "h")
	small := ready
	small.Capacity = 10
	s.relay("r-big", ready)
	s.relay("r-small", small)
	s.relay("r-busy", ready)
	s.relay("r-mute", ready)
	s.b.RelayUp(s.now, "r-mute", nil) // connected anew, and has not said what it offers
	s.b.FromRelay(s.now, "r-busy", wire.RelayLoad{Sessions: 50})
	s.meet("a", "b", s.grant(1, "a", "b"), "r-big")   // both empty: by name
	s.meet("c", "d", s.grant(2, "c", "d"), "r-small") // 1 of 100 against 0 of 10
	s.meet("e", "f", s.grant(3, "e", "f"), "r-big")   // 1 of 100 against 1 of 10
	s.b.FromRelay(s.now, "r-small", wire.RelayLoad{})
	s.b.FromRelay(s.now, "r-big", wire.RelayLoad{Sessions: 90})
	s.b.FromRelay(s.now, "r-small", wire.RelayLoad{Sessions: 9})
	s.meet("g", "h", s.grant(4, "g", "h"), "r-busy") // it has 50 of 100
}

func TestRelayThatRefusesOrIsSilentIsPassedOver(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	for _, r := range []string{"r1", "r2", "r3"} {
		s.relay(r, ready)
	}
	s.open("ann", "plant", id, 1)
	first := want[wire.CreateSession](s, "relay r1")
	s.b.FromRelay(s.now, "r1", wire.SessionRefused{ID: first.ID, Reason: wire.ReasonBusy})
	second := want[wire.CreateSession](s, "relay r2")
	if second.ID == first.ID || second.Legs[0].Secret == first.Legs[0].Secret {
		t.Error("the second relay got the id or the secrets of the first")
	}
	s.after(AskTimeout - time.Millisecond)
	s.wantIdle()
	s.after(time.Millisecond)
	if m := want[wire.EndSession](s, "relay r2"); m.ID != second.ID {
		t.Errorf("ended %v, want %v", m.ID, second.ID)
	}
	third := want[wire.CreateSession](s, "relay r3")
	// The answer that comes just after the deadline is taken back.
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: second.ID, TCP: 20001})
	if m := want[wire.EndSession](s, "relay r2"); m.ID != second.ID {
		t.Errorf("ended %v, want %v", m.ID, second.ID)
	}
	s.b.FromRelay(s.now, "r3", wire.SessionReady{ID: third.ID, TCP: 20001})
	s.wantTold("ann", "plant", [2]uint32{1, 0})
	s.b.Done(s.now, "ann", wire.SessionDone{Session: third.ID})
	want[wire.SessionEnded](s, "portal plant")
	want[wire.EndSession](s, "relay r3")
	// r2 is left out for a while.
	s.open("ann", "plant", id, 2)
	again := want[wire.CreateSession](s, "relay r1")
	s.b.FromRelay(s.now, "r1", wire.SessionRefused{ID: again.ID})
	last := want[wire.CreateSession](s, "relay r3")
	s.b.FromRelay(s.now, "r3", wire.SessionRefused{ID: last.ID})
	s.wantRefused("ann", 2, wire.ReasonRelayRefused)
	s.wantEmpty()
}

// F52: whichever of answer and deadline comes first, no side keeps what the
// other has given up.
func TestAnswerAtTheDeadlineLeaksNothing(t *testing.T) {
	for _, late := range []bool{false, true} {
		s := newScript(t, 10)
		id := s.grant(1, "ann", "plant")
		s.portals("ann", "plant")
		s.relay("r1", ready)
		s.open("ann", "plant", id, 1)
		create := want[wire.CreateSession](s, "relay r1")
		answer := func() { s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001}) }
		if late {
			s.after(AskTimeout)
			want[wire.EndSession](s, "relay r1")
			s.wantRefused("ann", 1, wire.ReasonRelayRefused)
			answer()
			want[wire.EndSession](s, "relay r1")
			s.wantIdle()
			s.wantEmpty()
			continue
		}
		answer()
		s.wantTold("ann", "plant", [2]uint32{1, 0})
		s.after(AskTimeout)
		s.wantIdle()
		if len(s.b.sessions) != 1 {
			t.Errorf("%d sessions, want 1", len(s.b.sessions))
		}
	}
}

func TestLyingRelayIsDroppedAndAnotherAsked(t *testing.T) {
	for what, m := range map[string]wire.SessionReady{
		"port below its range":  {TCP: 53},
		"port above its range":  {TCP: 20005, UDP: 21000},
		"port one below":        {TCP: 19999},
		"no port and no shared": {},
	} {
		s := newScript(t, 10)
		id := s.grant(1, "ann", "plant")
		s.portals("ann", "plant")
		offer := ready
		offer.SharedTCP = 0
		s.relay("r1", offer)
		s.relay("r2", offer)
		s.open("ann", "plant", id, 1)
		m.ID = want[wire.CreateSession](s, "relay r1").ID
		s.b.FromRelay(s.now, "r1", m)
		if bye := want[wire.Goodbye](s, "relay r1"); bye.Reason != wire.ReasonProtocol {
			t.Errorf("%s: %v", what, bye)
		}
		second := want[wire.CreateSession](s, "relay r2")
		s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: second.ID, TCP: 20005})
		s.wantTold("ann", "plant", [2]uint32{1, 0})
		// Until it has connected anew nobody is sent to it.
		s.b.Done(s.now, "ann", wire.SessionDone{Session: second.ID})
		want[wire.SessionEnded](s, "portal plant")
		want[wire.EndSession](s, "relay r2")
		s.b.RelayDown(s.now, "r2")
		s.open("ann", "plant", id, 2)
		s.wantRefused("ann", 2, wire.ReasonNoRelay)
	}
}

func TestRelayMayNotChangeItsWord(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "plant")
	s.relay("r1", ready)
	low := ready
	low.First = 1023
	s.b.FromRelay(s.now, "r1", low)
	want[wire.Goodbye](s, "relay r1")
	s.relay("r1", ready)
	other := ready
	other.SharedTCP = 25
	s.b.FromRelay(s.now, "r1", other)
	want[wire.Goodbye](s, "relay r1")
	s.relay("r1", ready)
	id := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: id, TCP: 20005})
	s.wantIdle() // the same again
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: id, TCP: 20006})
	want[wire.Goodbye](s, "relay r1")
}

func TestRelayCannotEndOrOpenSessionsOfAnother(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "plant")
	s.relay("r1", ready)
	id := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.relay("r2", ready)
	s.b.FromRelay(s.now, "r2", wire.SessionOver{ID: id})
	s.b.FromRelay(s.now, "r2", wire.SessionRefused{ID: id})
	s.wantIdle()
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: id, TCP: 20001})
	want[wire.EndSession](s, "relay r2")
	if len(s.b.sessions) != 1 {
		t.Errorf("%d sessions, want 1", len(s.b.sessions))
	}
}

func TestBothAskAtOnceAndTheSmallerNameStands(t *testing.T) {
	for _, first := range []string{"ann", "plant"} {
		s := newScript(t, 10)
		id := s.grant(1, "ann", "plant")
		s.portals("ann", "plant")
		s.relay("r1", ready)
		second, numbers := "plant", [2]uint32{1, 2}
		if first == "plant" {
			second, numbers = "ann", [2]uint32{2, 1}
		}
		s.open(first, second, id, 1)
		create := want[wire.CreateSession](s, "relay r1")
		s.open(second, first, id, 2)
		if first == "plant" {
			if m := want[wire.EndSession](s, "relay r1"); m.ID != create.ID {
				t.Errorf("ended %v, want %v", m.ID, create.ID)
			}
			create = want[wire.CreateSession](s, "relay r1")
		}
		if create.Legs[0].Portal != "ann" {
			t.Errorf("%s asked first: the opener is %s", first, create.Legs[0].Portal)
		}
		s.wantIdle()
		s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001})
		s.wantTold("ann", "plant", numbers)
		// Each asks again what is answered already: the request crossed the
		// answer.
		s.open("plant", "ann", id, 9)
		if m := want[wire.Session](s, "portal plant"); m.ID != create.ID || m.Request != 9 || m.Leg != 1 {
			t.Errorf("crossing request answered with %+v", m)
		}
		s.wantIdle()
	}
}

// T17: doubled and reversed messages change nothing.
func TestDoubledAndReversedMessages(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	s.b.Done(s.now, "ann", wire.SessionDone{Session: wire.SessionID{1}}) // of nothing
	s.open("ann", "plant", id, 1)
	create := want[wire.CreateSession](s, "relay r1")
	s.open("ann", "plant", id, 1)
	s.wantIdle()
	s.open("ann", "plant", id, 2) // another request for the same
	s.wantRefused("ann", 2, wire.ReasonBusy)
	for range 2 {
		s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001})
	}
	s.wantTold("ann", "plant", [2]uint32{1, 0})
	s.wantIdle()
	s.open("ann", "plant", id, 1)
	if m := want[wire.Session](s, "portal ann"); m.ID != create.ID {
		t.Errorf("a doubled request opened %v beside %v", m.ID, create.ID)
	}
	for range 2 {
		s.b.Done(s.now, "ann", wire.SessionDone{Session: create.ID})
	}
	want[wire.SessionEnded](s, "portal plant")
	want[wire.EndSession](s, "relay r1")
	for range 2 {
		s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: create.ID, Forth: 10, Back: 20})
	}
	s.wantIdle()
	s.wantEmpty()
	if r := s.lastRecord(); r.Answer != audit.Ended || r.Forth != 10 || r.Back != 20 {
		t.Errorf("record %+v", r)
	}
}

func TestPortalWithoutTunnelGetsANewSession(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	for what, before := range map[string]func(){
		"later":              func() { s.after(crossing) },
		"connected anew":     func() { s.portals("ann") },
		"its relay has gone": func() { s.relay("r2", ready); s.b.RelayDown(s.now, "r1") },
	} {
		old := s.meet("ann", "plant", id, "r1")
		before()
		s.open("ann", "plant", id, 8)
		for _, n := range []string{"ann", "plant"} {
			if m := want[wire.SessionEnded](s, "portal "+n); m.Session != old || m.Reason != wire.ReasonReplaced {
				t.Errorf("%s: %+v", what, m)
			}
		}
		relay := "r1"
		if s.b.relays["r1"] == nil || !s.b.relays["r1"].online {
			relay = "r2"
		} else {
			want[wire.EndSession](s, "relay r1")
		}
		create := want[wire.CreateSession](s, "relay "+relay)
		s.b.FromRelay(s.now, relay, wire.SessionReady{ID: create.ID, TCP: 20001})
		s.wantTold("ann", "plant", [2]uint32{8, 0})
		s.b.Done(s.now, "plant", wire.SessionDone{Session: create.ID})
		want[wire.SessionEnded](s, "portal ann")
		want[wire.EndSession](s, "relay "+relay)
		if relay == "r2" {
			s.b.RelayDown(s.now, "r2")
			s.relay("r1", ready)
		}
		s.wantIdle()
		s.wantEmpty()
	}
}

// B21: a session of others is as unknown as one that never was.
func TestPortalCannotEndSessionsOfOthers(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "cy", "plant")
	s.relay("r1", ready)
	id := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	for _, m := range []wire.SessionDone{{Session: id}, {Session: wire.SessionID{1}}, {}} {
		s.b.Done(s.now, "cy", m)
		s.wantIdle()
	}
}

// T15, B26.
func TestQuotas(t *testing.T) {
	const limit = 3
	s := newScript(t, limit)
	s.relay("r1", ready)
	s.portals("greedy", "other", "peer")
	peer := func(i int) string { return fmt.Sprintf("p%d", i) }
	for i := range limit + 1 {
		id := s.grant(byte(i+1), "greedy", peer(i))
		s.portals(peer(i))
		if i < limit {
			s.meet("greedy", peer(i), id, "r1")
			continue
		}
		s.open("greedy", peer(i), id, 1)
		s.wantRefused("greedy", 1, wire.ReasonBusy)
		s.open(peer(i), "greedy", id, 1)
		s.wantRefused(peer(i), 1, wire.ReasonBusy)
	}
	s.meet("other", "peer", s.grant(99, "other", "peer"), "r1")
}

func TestPendingRequestsAreBounded(t *testing.T) {
	s := newScript(t, 1000)
	s.relay("r1", ready)
	s.portals("greedy", "other", "peer")
	for i := range MaxPending + 1 {
		name := fmt.Sprintf("p%d", i)
		s.portals(name)
		s.open("greedy", name, s.grant(byte(i+1), "greedy", name), uint32(i+1))
		if i < MaxPending {
			want[wire.CreateSession](s, "relay r1")
		}
	}
	s.wantRefused("greedy", MaxPending+1, wire.ReasonBusy)
	s.meet("other", "peer", s.grant(99, "other", "peer"), "r1")
	s.b.PortalDown("greedy")
	for range MaxPending {
		want[wire.EndSession](s, "relay r1")
	}
	s.wantIdle() // who is gone gets no answer
	if p := s.b.portals["greedy"]; p != nil {
		t.Errorf("greedy is remembered: %+v", p)
	}
}

func TestPeerThatGoesWhileARelayIsAsked(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	s.open("ann", "plant", id, 1)
	create := want[wire.CreateSession](s, "relay r1")
	s.b.PortalDown("plant")
	if m := want[wire.EndSession](s, "relay r1"); m.ID != create.ID {
		t.Errorf("ended %v", m.ID)
	}
	s.wantRefused("ann", 1, wire.ReasonPeerOffline)
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001})
	want[wire.EndSession](s, "relay r1")
	s.wantIdle()
	s.wantEmpty()
}

// An answer to a request of the connection before would be taken for one to a
// request of this one.
func TestReplacedConnectionGetsNoAnswerOfTheOldOne(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	s.open("ann", "plant", id, 1)
	want[wire.CreateSession](s, "relay r1")
	s.portals("ann")
	want[wire.EndSession](s, "relay r1")
	s.wantIdle()
	s.wantEmpty()
	s.meet("ann", "plant", id, "r1")
}

func TestLastGrantEndsTheSession(t *testing.T) {
	s := newScript(t, 10)
	first, second := s.grant(1, "ann", "plant"), s.grant(2, "plant", "ann")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	id := s.meet("ann", "plant", first, "r1")
	delete(s.grants, first)
	s.b.Unjoined(s.now, "ann", "plant", wire.ReasonGrantRemoved)
	s.wantIdle() // the other grant still joins them
	delete(s.grants, second)
	s.b.Unjoined(s.now, "plant", "ann", wire.ReasonGrantRemoved)
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Session != id || m.Reason != wire.ReasonGrantRemoved {
			t.Errorf("%+v", m)
		}
	}
	want[wire.EndSession](s, "relay r1")
	// The same while the relay is asked.
	third := s.grant(3, "ann", "plant")
	s.open("ann", "plant", third, 1)
	want[wire.CreateSession](s, "relay r1")
	delete(s.grants, third)
	s.b.Unjoined(s.now, "ann", "plant", wire.ReasonGrantRemoved)
	want[wire.EndSession](s, "relay r1")
	s.wantRefused("ann", 1, wire.ReasonGrantRemoved)
	s.wantEmpty()
}

func TestReplacedKeyEndsAllSessionsOfThePortal(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "bo", "plant")
	s.relay("r1", ready)
	s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.meet("bo", "plant", s.grant(2, "bo", "plant"), "r1")
	s.open("ann", "bo", s.grant(3, "ann", "bo"), 1)
	want[wire.CreateSession](s, "relay r1")
	s.b.Revoke(s.now, "ann")
	ended := 0
	for _, m := range s.sent {
		if _, ok := m.m.(wire.SessionEnded); ok {
			ended++
		}
	}
	if ended != 2 || len(s.b.sessions) != 1 {
		t.Errorf("%d portals told, %d sessions left; want 2 and bo's one", ended, len(s.b.sessions))
	}
}

func TestSessionsOutliveTheirPortalsAndRelaysConnections(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	session := s.meet("ann", "plant", id, "r1")
	s.b.PortalDown("ann")
	s.b.RelayDown(s.now, "r1")
	s.after(time.Minute)
	held := ready
	held.Sessions = []wire.SessionID{{1}, session} // one is of before our time
	s.relay("r1", held)
	s.after(confirmTime)
	s.portals("ann")
	s.wantIdle()
	if len(s.b.sessions) != 1 {
		t.Fatalf("%d sessions, want 1", len(s.b.sessions))
	}
	// The relay was killed: it holds nothing.
	s.b.RelayDown(s.now, "r1")
	s.relay("r1", ready)
	s.after(confirmTime)
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Session != session || m.Reason != wire.ReasonCarrierLost {
			t.Errorf("%+v", m)
		}
	}
	want[wire.EndSession](s, "relay r1")
	s.wantEmpty()
}

func TestSessionsOfARelayThatStaysAwayAreForgotten(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "plant")
	s.relay("r1", ready)
	s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.b.RelayDown(s.now, "r1")
	s.after(forgetTime)
	s.wantIdle()
	s.wantEmpty()
	if len(s.b.relays) != 0 {
		t.Errorf("%d relays are remembered", len(s.b.relays))
	}
}

func TestRelayThatEndsASession(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "plant")
	s.relay("r1", ready)
	id := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: id, Reason: wire.ReasonIdle, Forth: 1, Back: 2})
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Reason != wire.ReasonIdle {
			t.Errorf("%+v", m)
		}
	}
	s.wantIdle()
	s.wantEmpty()
	if r := s.lastRecord(); r.Answer != audit.Ended || r.Reason != "idle" || r.Forth != 1 || r.Back != 2 {
		t.Errorf("record %+v", r)
	}
}

// What a relay never reports is recorded all the same.
func TestEndedSessionIsRecordedWithoutTheRelay(t *testing.T) {
	for what, then := range map[string]func(*script){
		"silent": func(s *script) { s.after(endTime) },
		"gone":   func(s *script) { s.b.RelayDown(s.now, "r1") },
	} {
		s := newScript(t, 10)
		s.portals("ann", "plant")
		s.relay("r1", ready)
		id := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
		s.b.Done(s.now, "plant", wire.SessionDone{Session: id, Reason: wire.ReasonIdle})
		then(s)
		if r := s.lastRecord(); r.Answer != audit.Ended || *r.Session != id || len(s.b.ending) != 0 {
			t.Errorf("%s: record %+v, %d pending", what, r, len(s.b.ending))
		}
	}
}
