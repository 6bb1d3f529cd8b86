package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/couple"
)

func (s *script) drain(relay string) {
	s.b.FromRelay(s.now, relay, wire.RelayDraining{Reason: wire.ReasonShutdown})
}

// leavingR1 returns a script in which ann and plant have met at r1 and are to move
// to the first of the others that are ready.
func leavingR1(t *testing.T, others ...string) (s *script, id wire.GrantID, old wire.SessionID) {
	t.Helper()
	s, id = annAndPlant(t, "r1")
	old = s.meet("ann", "plant", id, "r1")
	for _, r := range others {
		s.relay(r, ready)
	}
	s.drain("r1")
	return s, id, old
}

// wantMoved takes the question for the successor of a session and what both
// portals are told of it.
func (s *script) wantMoved(old wire.SessionID, opener, other, relay string, numbers [2]uint32) wire.SessionID {
	s.t.Helper()
	id := s.wantAsked(relay)
	s.wantToldMoved(old, id, opener, other, relay, numbers)
	return id
}

func (s *script) wantToldMoved(old, id wire.SessionID, opener, other, relay string, numbers [2]uint32) {
	s.t.Helper()
	for i, n := range []string{opener, other} {
		m := want[wire.Session](s, "portal "+n)
		if m.ID != id || m.Replaces != old || m.Relay.Name != relay || int(m.Leg) != i || m.Request != numbers[i] {
			s.t.Fatalf("%s is told %+v, want %v at %s in the place of %v for request %d", n, m, id, relay, old, numbers[i])
		}
	}
}

// F41: make before break. The old session stays until a portal has left it.
func TestRelayThatDrainsIsEmptied(t *testing.T) {
	s := newScript(t, 1) // a move is no second session
	id := s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.relay("r1", ready)
	old := s.meet("ann", "plant", id, "r1")
	s.relay("r2", ready)
	s.after(time.Hour)
	s.drain("r1")
	s.drain("r1") // said twice
	next := s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
	s.wantIdle()
	if r := s.lastRecord(); r.Answer != audit.Granted || r.Relay != "r2" || r.Detail != "in the place of session "+old.String()+" at r1" {
		t.Errorf("record %+v", r)
	}
	if list := s.b.Sessions(s.now); len(list) != 2 || list[0].State == list[1].State {
		t.Errorf("sessions %+v", list)
	}
	s.after(time.Minute)
	s.wantIdle() // it does not move again, and the old one stays
	s.b.Done(s.now, "plant", wire.SessionDone{Session: old, Reason: wire.ReasonIdle})
	if m := want[wire.SessionEnded](s, "portal ann"); m.Session != old || m.Reason != wire.ReasonReplaced {
		t.Errorf("ann is told %+v", m)
	}
	if m := want[wire.EndSession](s, "relay r1"); m.ID != old {
		t.Errorf("ended %v, want %v", m.ID, old)
	}
	s.b.Done(s.now, "ann", wire.SessionDone{Session: old})
	s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: old})
	s.b.RelayDown(s.now, "r1")
	s.wantIdle()
	s.wantSessions(1)
	if s.b.sessions[next] == nil || s.b.relays["r1"] != nil {
		t.Error("the wrong session is left, or the relay that has gone")
	}
	s.b.Done(s.now, "ann", wire.SessionDone{Session: next})
	want[wire.SessionEnded](s, "portal plant")
	want[wire.EndSession](s, "relay r2")
	s.wantEmpty()
}

func TestRelayThatDrainsGetsNoNewSession(t *testing.T) {
	s := newScript(t, 10)
	first, second := s.grant(1, "ann", "plant"), s.grant(2, "bo", "plant")
	s.portals("ann", "bo", "plant")
	s.relay("r1", ready)
	s.open("ann", "plant", first, 1)
	create := want[wire.CreateSession](s, "relay r1")
	s.relay("r2", ready)
	s.drain("r1")
	// What is being asked for is asked elsewhere, and its answer taken back.
	want[wire.EndSession](s, "relay r1")
	want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001})
	want[wire.EndSession](s, "relay r1")
	s.meet("bo", "plant", second, "r2")
	s.b.RelayDown(s.now, "r2")
	s.wantRefused("ann", 1, wire.ReasonNoRelay)
	s.wantIdle()
}

// What does not move yet, and what makes it move.
func TestMoveWaitsForWhatItNeeds(t *testing.T) {
	for what, c := range map[string]struct {
		before, then func(*script)
	}{
		"a portal that is away": {
			func(s *script) { s.b.PortalDown("plant") },
			func(s *script) { s.portals("plant"); s.after(time.Second) },
		},
		"another relay": {
			func(s *script) { s.b.RelayDown(s.now, "r2") },
			func(s *script) { s.relay("r2", ready); s.after(movePause) },
		},
		"room at another": {
			func(s *script) { s.b.FromRelay(s.now, "r2", wire.RelayLoad{Sessions: 100}) },
			func(s *script) { s.b.FromRelay(s.now, "r2", wire.RelayLoad{}); s.after(movePause) },
		},
		"the pinned one": {
			func(s *script) { s.pins[couple.Of("ann", "plant")] = "r1" },
			func(s *script) { delete(s.pins, couple.Of("ann", "plant")); s.after(movePause) },
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, id := annAndPlant(t, "r1", "r2")
			old := s.meet("ann", "plant", id, "r1")
			c.before(s)
			s.drain("r1")
			s.after(time.Second)
			s.wantIdle()
			c.then(s)
			s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
			s.wantIdle()
		})
	}
}

// Also what was learned from the relay after a restart, and what is left at a
// relay that has gone while it drained.
func TestHeldSessionsMove(t *testing.T) {
	s := newScript(t, 10)
	s.grant(1, "ann", "plant")
	s.grant(2, "bo", "plant")
	s.portals("ann", "bo", "plant")
	s.holding("r1", held(1, "plant", "ann", 60), held(2, "bo", "plant", 30))
	s.drain("r1")
	s.b.RelayDown(s.now, "r1")
	s.relay("r2", ready)
	s.after(movePause)
	first, second := want[wire.CreateSession](s, "relay r2"), want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: first.ID, TCP: 20005})
	s.wantToldMoved(wire.SessionID{1}, first.ID, "plant", "ann", "r2", [2]uint32{})
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: second.ID, TCP: 20006})
	s.wantToldMoved(wire.SessionID{2}, second.ID, "bo", "plant", "r2", [2]uint32{})
	s.wantIdle()
	if r := s.lastRecord(); r.Grant != nil {
		t.Errorf("record with a grant that nobody knows: %+v", r)
	}
	s.wantSessions(4)
	s.after(forgetTime)
	s.wantSessions(2)
}

// A server that was restarted in the middle of a move finds both sessions.
func TestPairWithASessionElsewhereIsNotMovedTwice(t *testing.T) {
	s := newScript(t, 10)
	s.grant(1, "ann", "plant")
	s.portals("ann", "plant")
	s.holding("r1", held(1, "ann", "plant", 60))
	s.holding("r2", held(2, "ann", "plant", 1))
	s.drain("r1")
	s.after(time.Second)
	s.wantIdle()
	for _, v := range s.b.Sessions(s.now) {
		if want := map[string]string{"r1": "leaving", "r2": "open"}[v.Relay]; v.State != want {
			t.Errorf("the session at %s is %s, want %s", v.Relay, v.State, want)
		}
	}
}

func TestMovesAreBoundedAndTheOldestGoFirst(t *testing.T) {
	s := newScript(t, 1000)
	large := ready
	large.Capacity = 10000
	s.relay("r1", large)
	s.portals("plant")
	const pairs = moveRate + 50
	for i := range pairs {
		name := fmt.Sprintf("p%d", i)
		s.portals(name)
		s.grants[wire.GrantID{byte(i), byte(i >> 8), 1}] = [3]string{name, "plant", "f"}
		s.meet(name, "plant", wire.GrantID{byte(i), byte(i >> 8), 1}, "r1")
		s.now = s.now.Add(time.Second)
	}
	s.relay("r2", large)
	s.drain("r1")
	moved := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			m := want[wire.CreateSession](s, "relay r2")
			if name := fmt.Sprintf("p%d", i); m.Legs[0].Portal != name {
				t.Fatalf("move %d is that of %s", i, m.Legs[0].Portal)
			}
		}
		s.wantIdle()
	}
	moved(0, moveRate)
	s.after(time.Second)
	moved(moveRate, pairs)
}

func TestRelayThatRefusesAMoveIsPassedOver(t *testing.T) {
	s, _, old := leavingR1(t, "r2", "r3")
	first := want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r2", wire.SessionRefused{ID: first.ID, Reason: wire.ReasonBusy})
	second := want[wire.CreateSession](s, "relay r3")
	s.after(AskTimeout)
	if m := want[wire.EndSession](s, "relay r3"); m.ID != second.ID {
		t.Errorf("ended %v, want %v", m.ID, second.ID)
	}
	s.wantIdle() // nobody asked, so nobody is refused
	s.wantSessions(1)
	s.after(movePause - time.Second)
	s.wantIdle()
	s.after(time.Second)
	s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
}

// The successor has ended before the tunnel had moved to it.
func TestMoveThatFailsIsTriedAgain(t *testing.T) {
	for what, end := range map[string]func(*script, wire.SessionID){
		"its relay":  func(s *script, id wire.SessionID) { s.b.FromRelay(s.now, "r2", wire.SessionOver{ID: id}) },
		"its portal": func(s *script, id wire.SessionID) { s.b.Done(s.now, "ann", wire.SessionDone{Session: id}) },
	} {
		t.Run(what, func(t *testing.T) {
			s, _, old := leavingR1(t, "r2")
			end(s, s.wantMoved(old, "ann", "plant", "r2", [2]uint32{}))
			s.sent = nil
			s.after(movePause - time.Second)
			s.wantIdle()
			s.after(time.Second)
			s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
			s.wantSessions(2)
		})
	}
}

// Both portals may ask by themselves while the server moves them.
func TestRequestDuringAMoveGetsTheSessionOfTheMove(t *testing.T) {
	s, id := annAndPlant(t, "r1")
	old := s.meet("plant", "ann", id, "r1")
	s.relay("r2", ready)
	s.after(time.Minute)
	s.drain("r1")
	create := want[wire.CreateSession](s, "relay r2")
	for i, n := range []string{"plant", "ann"} { // the opener stays, whatever the names
		s.b.Open(s.now, n, wire.OpenSession{Request: uint32(3 + i), Peer: []string{"ann", "plant"}[i], Grant: id, Lost: "r1"})
	}
	s.wantIdle()
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: create.ID, TCP: 20005})
	s.wantToldMoved(old, create.ID, "plant", "ann", "r2", [2]uint32{3, 4})
	// One that crosses the answer.
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 5, Peer: "plant", Grant: id, Lost: "r1"})
	if m := want[wire.Session](s, "portal ann"); m.ID != create.ID || m.Request != 5 || m.Replaces != old {
		t.Errorf("ann is told %+v", m)
	}
	s.wantIdle()
	// Later it means that neither carries.
	s.after(crossing)
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 6, Peer: "plant", Grant: id, Lost: "r2"})
	for range 2 {
		want[wire.SessionEnded](s, "portal plant")
		want[wire.SessionEnded](s, "portal ann")
		want[wire.EndSession](s, s.sent[0].to)
	}
	s.wantAsked("r2") // r1 drains: there is no other
	if m := want[wire.Session](s, "portal ann"); !m.Replaces.IsZero() {
		t.Errorf("a session by a request replaces %v", m.Replaces)
	}
}

// Both portals lose a relay at once and ask at once.
func TestPortalsThatLoseARelayAtOnceMeetAtTheSameOther(t *testing.T) {
	s, id := annAndPlant(t, "r1", "r2", "r3")
	old := s.meet("ann", "plant", id, "r1") // just now
	lost := func(name, peer string, number uint32, relay string) {
		s.b.Open(s.now, name, wire.OpenSession{Request: number, Peer: peer, Grant: id, Lost: relay})
	}
	ended := func(id wire.SessionID, relay string) {
		t.Helper()
		for _, n := range []string{"ann", "plant"} {
			if m := want[wire.SessionEnded](s, "portal "+n); m.Session != id || m.Reason != wire.ReasonReplaced {
				t.Fatalf("%s is told %+v", n, m)
			}
		}
		if m := want[wire.EndSession](s, "relay "+relay); m.ID != id {
			t.Fatalf("ended %v, want %v", m.ID, id)
		}
	}
	lost("ann", "plant", 8, "r1")
	ended(old, "r1")
	create := want[wire.CreateSession](s, "relay r2")
	lost("plant", "ann", 9, "r1")
	s.wantIdle()
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: create.ID, TCP: 20005})
	second := s.wantTold("ann", "plant", [2]uint32{8, 9})
	lost("ann", "plant", 10, "r1") // said before it knew
	if m := want[wire.Session](s, "portal ann"); m.ID != second || m.Request != 10 {
		t.Errorf("ann is told %+v", m)
	}
	s.wantIdle()
	lost("plant", "ann", 11, "r2") // it has tried
	ended(second, "r2")
	create = want[wire.CreateSession](s, "relay r1")
	// Nor has the other one found it there, while that is being asked for.
	lost("ann", "plant", 12, "r1")
	if m := want[wire.EndSession](s, "relay r1"); m.ID != create.ID {
		t.Errorf("ended %v, want %v", m.ID, create.ID)
	}
	s.wantAsked("r3")
	s.wantTold("ann", "plant", [2]uint32{12, 11})
	s.wantIdle()
	s.wantSessions(1)
}

func TestSessionThatClosesIsNotMoved(t *testing.T) {
	for what, end := range map[string]func(*script, wire.SessionID, wire.GrantID){
		"its portal": func(s *script, old wire.SessionID, _ wire.GrantID) {
			s.b.Done(s.now, "plant", wire.SessionDone{Session: old, Reason: wire.ReasonIdle})
			want[wire.SessionEnded](s, "portal ann")
			want[wire.EndSession](s, "relay r1")
			want[wire.EndSession](s, "relay r2")
		},
		"the policy": func(s *script, _ wire.SessionID, id wire.GrantID) {
			delete(s.grants, id)
			s.b.Unjoined(s.now, "ann", "plant", wire.ReasonGrantRemoved)
			want[wire.SessionEnded](s, "portal ann")
			want[wire.SessionEnded](s, "portal plant")
			want[wire.EndSession](s, "relay r1")
			want[wire.EndSession](s, "relay r2")
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, id, old := leavingR1(t, "r2")
			create := want[wire.CreateSession](s, "relay r2")
			end(s, old, id)
			s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: create.ID, TCP: 20001})
			want[wire.EndSession](s, "relay r2")
			s.wantIdle()
			s.wantEmpty()
		})
	}
}

// The relay has stopped before its session has moved: the tunnel waits, and goes
// on at the next one.
func TestMoveGoesOnAfterTheOldSessionIsOver(t *testing.T) {
	s, _, old := leavingR1(t, "r2")
	create := want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: old, Reason: wire.ReasonShutdown})
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Reason != wire.ReasonShutdown {
			t.Errorf("%s is told %+v", n, m)
		}
	}
	s.b.FromRelay(s.now, "r2", wire.SessionReady{ID: create.ID, TCP: 20005})
	s.wantToldMoved(old, create.ID, "ann", "plant", "r2", [2]uint32{})
	s.wantSessions(1)
}

// F53 between the first and the second portal: one of them was cut off before
// it was told.
func TestPortalThatConnectsAnewIsToldTheMoveAgain(t *testing.T) {
	s, _, old := leavingR1(t, "r2")
	next := s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
	s.portals("other", "plant")
	s.after(time.Second)
	if m := want[wire.Session](s, "portal plant"); m.ID != next || m.Replaces != old || m.Leg != 1 || m.Request != 0 {
		t.Errorf("plant is told %+v", m)
	}
	s.after(time.Second)
	s.wantIdle() // once on each connection
	s.b.Done(s.now, "ann", wire.SessionDone{Session: old})
	want[wire.SessionEnded](s, "portal plant")
	want[wire.EndSession](s, "relay r1")
	s.portals("other", "plant")
	s.after(time.Second)
	s.wantIdle() // the move is over
}

func TestPolicyThatPinsAPairMovesItsSession(t *testing.T) {
	s := newScript(t, 10)
	id, other := s.grant(1, "ann", "plant"), s.grant(2, "bo", "plant")
	s.portals("ann", "bo", "plant")
	s.relay("r1", ready)
	s.relay("r2", ready)
	old := s.meet("ann", "plant", id, "r1")
	s.b.FromRelay(s.now, "r2", wire.RelayLoad{Sessions: 50})
	s.open("bo", "plant", other, 3)
	want[wire.CreateSession](s, "relay r1")
	s.b.Repin(s.now)
	s.wantIdle()
	s.pins[couple.Of("ann", "plant")], s.pins[couple.Of("bo", "plant")] = "r2", "r2"
	s.b.Repin(s.now)
	first := want[wire.EndSession](s, "relay r1") // that of bo, which is not open yet
	if first.ID == old {
		t.Fatal("the open session was ended before another was there")
	}
	bo := want[wire.CreateSession](s, "relay r2")
	if bo.Legs[0].Portal != "bo" {
		t.Errorf("asked for %s first", bo.Legs[0].Portal)
	}
	s.wantMoved(old, "ann", "plant", "r2", [2]uint32{})
	s.after(AskTimeout) // bo's is late: no other relay may be asked
	want[wire.EndSession](s, "relay r2")
	s.wantRefused("bo", 3, wire.ReasonRelayRefused)
	s.wantIdle()
	// A portal that does not leave is cut off there.
	s.after(misplacedTime)
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Session != old || m.Reason != wire.ReasonRelayRefused {
			t.Errorf("%s is told %+v", n, m)
		}
	}
	want[wire.EndSession](s, "relay r1")
	s.wantIdle()
	s.wantSessions(1)
}

func TestSessionEndsThatCannotMoveToWhereThePolicyWantsIt(t *testing.T) {
	s, id := annAndPlant(t, "r1")
	s.meet("ann", "plant", id, "r1")
	s.pins[couple.Of("ann", "plant")] = "r2"
	s.b.Repin(s.now)
	s.after(misplacedTime / 2)
	s.wantIdle()
	// A change of mind in time.
	delete(s.pins, couple.Of("ann", "plant"))
	s.b.Repin(s.now)
	s.after(misplacedTime)
	s.wantIdle()
	s.pins[couple.Of("ann", "plant")] = "r2"
	s.b.Repin(s.now)
	s.after(misplacedTime)
	want[wire.SessionEnded](s, "portal ann")
	want[wire.SessionEnded](s, "portal plant")
	want[wire.EndSession](s, "relay r1")
	s.wantEmpty()
}
