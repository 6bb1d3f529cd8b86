package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// holding connects a relay that says it holds sessions.
func (s *script) holding(name string, held ...wire.HeldSession) {
	offer := ready
	offer.Sessions = held
	s.relay(name, offer)
}

func held(n byte, opener, peer string, age uint32) wire.HeldSession {
	return wire.HeldSession{ID: wire.SessionID{n}, Portals: [2]string{opener, peer}, Transports: wire.TransportSplice, Age: age}
}

func (s *script) wantEndedAtRelay(relay string, n byte, reason wire.Reason) {
	s.t.Helper()
	if m := want[wire.EndSession](s, "relay "+relay); m.ID != (wire.SessionID{n}) || m.Reason != reason {
		s.t.Fatalf("%v ended at %s because of %v, want %d because of %v", m.ID, relay, m.Reason, n, reason)
	}
}

func (s *script) wantSessions(n int) {
	s.t.Helper()
	if len(s.b.sessions) != n || len(s.b.Sessions(s.now)) != n {
		s.t.Fatalf("%d sessions, want %d", len(s.b.sessions), n)
	}
}

func TestRestartedServerLearnsWhatItsRelaysHold(t *testing.T) {
	s := newScript(t, 10)
	s.grant(1, "ann", "plant")
	s.holding("r1", held(1, "ann", "plant", 90))
	s.wantIdle()
	want := SessionView{ID: wire.SessionID{1}, Opener: "ann", Peer: "plant", Relay: "r1", State: "open", Since: start.Add(-90 * time.Second)}
	if list := s.b.Sessions(s.now); len(list) != 1 || list[0] != want {
		t.Errorf("sessions %+v, want %+v", list, want)
	}
	if v := s.b.Relays(); v[0].Sessions != 1 {
		t.Errorf("the relay has %d sessions, want 1", v[0].Sessions)
	}
	// It is not forgotten while the portals come back, one after the other.
	s.portals("ann", "plant")
	s.b.PortalDown("ann")
	s.after(confirmTime)
	s.wantIdle()
	s.wantSessions(1)
}

func TestHeldSessionEndsAsAnyOther(t *testing.T) {
	told := func(s *script, names ...string) {
		for _, n := range names {
			if m := want[wire.SessionEnded](s, "portal "+n); m.Session != (wire.SessionID{1}) {
				s.t.Errorf("%s: %+v", n, m)
			}
		}
	}
	for what, end := range map[string]func(s *script, id wire.GrantID){
		"its portal is done": func(s *script, _ wire.GrantID) {
			s.b.Done(s.now, "cy", wire.SessionDone{Session: wire.SessionID{1}}) // not its own
			s.wantIdle()
			s.b.Done(s.now, "plant", wire.SessionDone{Session: wire.SessionID{1}, Reason: wire.ReasonIdle})
			told(s, "ann")
			s.wantEndedAtRelay("r1", 1, wire.ReasonIdle)
		},
		"the policy": func(s *script, id wire.GrantID) {
			delete(s.grants, id)
			s.b.Unjoined(s.now, "plant", "ann", wire.ReasonGrantRemoved)
			told(s, "ann", "plant")
			s.wantEndedAtRelay("r1", 1, wire.ReasonGrantRemoved)
		},
		"a new key": func(s *script, _ wire.GrantID) {
			s.b.Revoke(s.now, "ann")
			told(s, "ann", "plant")
			s.wantEndedAtRelay("r1", 1, wire.ReasonRevoked)
		},
		"its relay": func(s *script, _ wire.GrantID) {
			s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: wire.SessionID{1}, Reason: wire.ReasonIdle, Forth: 3})
			told(s, "ann", "plant")
			if r := s.lastRecord(); r.Forth != 3 || r.Grant != nil || r.Portal != "ann" {
				s.t.Errorf("record %+v", r)
			}
		},
		"its relay was killed": func(s *script, _ wire.GrantID) {
			s.b.RelayDown(s.now, "r1")
			s.holding("r1")
			s.after(confirmTime)
			told(s, "ann", "plant")
			s.wantEndedAtRelay("r1", 1, wire.ReasonCarrierLost)
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newScript(t, 10)
			id := s.grant(1, "ann", "plant")
			s.portals("ann", "plant", "cy")
			s.holding("r1", held(1, "ann", "plant", 90))
			end(s, id)
			s.wantIdle()
			s.wantEmpty()
		})
	}
}

// A portal that asks has no tunnel: the secrets of the held session are
// unknown, so there is a new one in its place.
func TestPortalThatAsksReplacesAHeldSession(t *testing.T) {
	s, id := annAndPlant(t)
	s.holding("r1", held(1, "plant", "ann", 1))
	s.open("ann", "plant", id, 7)
	for _, n := range []string{"plant", "ann"} {
		want[wire.SessionEnded](s, "portal "+n)
	}
	s.wantEndedAtRelay("r1", 1, wire.ReasonReplaced)
	create := want[wire.CreateSession](s, "relay r1")
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20005})
	s.wantTold("ann", "plant", [2]uint32{7, 0})
	s.wantSessions(1)
	// The relay says it once more, before it has heard of the end.
	again := ready
	again.Sessions = []wire.HeldSession{held(1, "plant", "ann", 1)}
	s.b.FromRelay(s.now, "r1", again)
	s.wantIdle()
	s.wantSessions(1)
}

func TestHeldSessionThatMayNotBeIsEndedAtItsRelay(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant", "cy")
	s.relay("r1", ready)
	mine := s.meet("ann", "plant", id, "r1")
	records := len(s.records)
	s.holding("r2",
		held(2, "ann", "cy", 9),    // no grant joins them any more
		held(3, "plant", "ann", 9), // the pair has a session opened since
		wire.HeldSession{ID: mine, Portals: [2]string{"ann", "plant"}}, // of another relay
	)
	s.wantEndedAtRelay("r2", 2, wire.ReasonGrantRemoved)
	s.wantEndedAtRelay("r2", 3, wire.ReasonReplaced)
	s.wantIdle()
	s.wantSessions(1)
	if len(s.records) != records {
		t.Errorf("a relay's claims made %d records", len(s.records)-records)
	}
	// Nor does another relay's word keep it alive.
	s.b.RelayDown(s.now, "r1")
	s.relay("r1", ready)
	s.holding("r2", wire.HeldSession{ID: mine, Portals: [2]string{"ann", "plant"}})
	s.after(confirmTime)
	for _, n := range []string{"ann", "plant"} {
		want[wire.SessionEnded](s, "portal "+n)
	}
	want[wire.EndSession](s, "relay r1")
	s.wantEmpty()
}

// A relay that lies cannot end what another one holds, nor use up a portal's
// quota.
func TestHeldSessionsOfTwoRelaysStandSideBySide(t *testing.T) {
	s := newScript(t, 1)
	id := s.grant(1, "ann", "plant")
	s.grant(2, "ann", "cy")
	s.portals("ann", "plant", "cy")
	s.holding("r1", held(1, "ann", "plant", 90))
	s.holding("liar", held(2, "ann", "plant", 0), held(3, "ann", "cy", 0))
	s.wantIdle()
	s.wantSessions(3)
	// At one relay the younger one stands, whichever is said first.
	more := ready
	more.Sessions = []wire.HeldSession{held(4, "plant", "ann", 20), held(5, "plant", "ann", 30)}
	s.b.FromRelay(s.now, "r1", more)
	s.wantEndedAtRelay("r1", 1, wire.ReasonReplaced)
	s.wantEndedAtRelay("r1", 5, wire.ReasonReplaced)
	s.wantIdle()
	// The next request ends what both hold.
	s.open("ann", "plant", id, 1)
	ended := 0
	for len(s.sent) > 0 {
		if m, ok := s.sent[0].m.(wire.EndSession); ok && m.Reason == wire.ReasonReplaced && (m.ID == wire.SessionID{2} || m.ID == wire.SessionID{4}) {
			ended++
		}
		if _, ok := s.sent[0].m.(wire.CreateSession); ok {
			break
		}
		s.sent = s.sent[1:]
	}
	if len(s.sent) != 1 || ended != 2 {
		t.Errorf("%d held sessions ended, then sent %+v", ended, s.sent)
	}
	s.wantSessions(2)
}

// F53: the server died between the relay's answer and the portals, or between the
// two portals. Whoever asks after that gets a new session at once, and the relay is rid of
// the one that nobody knows.
func TestServerThatDiedWhileItOpenedASession(t *testing.T) {
	for _, asking := range [][]string{{"ann"}, {"plant"}, {"plant", "ann"}} {
		t.Run(fmt.Sprint(asking), func(t *testing.T) {
			s, id := annAndPlant(t)
			s.holding("r1", held(1, "ann", "plant", 2)) // the relay tells the next server
			for _, n := range asking {
				s.open(n, map[string]string{"ann": "plant", "plant": "ann"}[n], id, 1)
			}
			for _, n := range []string{"ann", "plant"} {
				if m := want[wire.SessionEnded](s, "portal "+n); m.Session != (wire.SessionID{1}) || m.Reason != wire.ReasonReplaced {
					t.Errorf("%s is told %+v", n, m)
				}
			}
			s.wantEndedAtRelay("r1", 1, wire.ReasonReplaced)
			create := want[wire.CreateSession](s, "relay r1")
			if len(asking) == 2 { // the smaller name stands
				want[wire.EndSession](s, "relay r1")
				create = want[wire.CreateSession](s, "relay r1")
			}
			s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20005})
			for range 2 {
				if m := (s.sent[0].m).(wire.Session); m.ID != create.ID {
					t.Errorf("%s is told %v", s.sent[0].to, m.ID)
				}
				s.sent = s.sent[1:]
			}
			s.wantIdle()
			s.wantSessions(1)
		})
	}
}
