package broker

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
)

func TestSessionIsToldToBothPortalsAndRecorded(t *testing.T) {
	s, id := annAndPlant(t, "r1")
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 3, Peer: "plant", Grant: id, Transports: wire.TransportSplice | wire.TransportPacket})
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
	if m := want[wire.Session](s, "portal plant"); m.Request != 0 || m.Leg != 1 || m.Secret != create.Legs[1].Secret {
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
	s, id := annAndPlant(t)
	s.open("ann", "plant", id, 1)
	s.wantRefused("ann", 1, wire.ReasonNoRelay)
	full := ready
	full.Capacity = 0
	s.relay("r1", full)
	s.open("plant", "ann", id, 2) // a grant joins two in either direction
	s.wantRefused("plant", 2, wire.ReasonRelayRefused)
	s.wantEmpty()
}

func TestBothAskAtOnceAndTheSmallerNameStands(t *testing.T) {
	for _, first := range []string{"ann", "plant"} {
		s, id := annAndPlant(t, "r1")
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
	s, id := annAndPlant(t, "r1")
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
	s, id := annAndPlant(t, "r1")
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
	s, id := annAndPlant(t, "r1")
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
	s, id := annAndPlant(t, "r1")
	s.open("ann", "plant", id, 1)
	want[wire.CreateSession](s, "relay r1")
	s.portals("ann")
	want[wire.EndSession](s, "relay r1")
	s.wantIdle()
	s.wantEmpty()
	s.meet("ann", "plant", id, "r1")
}
