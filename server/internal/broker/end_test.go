package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
)

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
	s, id := annAndPlant(t, "r1")
	session := s.meet("ann", "plant", id, "r1")
	s.b.PortalDown("ann")
	s.b.RelayDown(s.now, "r1")
	s.after(time.Minute)
	held := ready
	held.Sessions = []wire.HeldSession{{ID: session, Portals: [2]string{"ann", "plant"}}}
	s.relay("r1", held)
	s.after(confirmTime)
	s.portals("ann")
	s.wantIdle()
	if len(s.b.sessions) != 1 {
		t.Fatalf("%d sessions, want 1", len(s.b.sessions))
	}
	// The relay was killed: it holds nothing, and says so at once.
	s.b.RelayDown(s.now, "r1")
	s.relay("r1", ready)
	for _, n := range []string{"ann", "plant"} {
		if m := want[wire.SessionEnded](s, "portal "+n); m.Session != session || m.Reason != wire.ReasonCarrierLost {
			t.Errorf("%+v", m)
		}
	}
	want[wire.EndSession](s, "relay r1")
	s.wantEmpty()
}

// What a relay has not named is waited for as long as more may come.
func TestRelayThatHoldsManySessionsNamesThemInTurn(t *testing.T) {
	s := newScript(t, 10)
	s.portals("ann", "plant")
	large := ready
	large.Capacity = 1000
	s.relay("r1", large)
	session := s.meet("ann", "plant", s.grant(1, "ann", "plant"), "r1")
	s.b.RelayDown(s.now, "r1")
	full := large
	for i := range wire.MaxHeld {
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		s.grant(byte(i+2), a, b)
		full.Sessions = append(full.Sessions, wire.HeldSession{ID: wire.NewSessionID(), Portals: [2]string{a, b}})
	}
	s.relay("r1", full)
	s.wantIdle()
	last := large
	last.Sessions = []wire.HeldSession{{ID: session, Portals: [2]string{"ann", "plant"}}}
	s.b.FromRelay(s.now, "r1", last)
	s.after(confirmTime)
	s.wantIdle()
	s.wantSessions(wire.MaxHeld + 1)
	// Once it has named all, or could have, the rest is gone.
	for what, then := range map[string]func(){
		"the last": func() { s.b.FromRelay(s.now, "r1", large) },
		"too late": func() { s.after(confirmTime) },
	} {
		s.b.RelayDown(s.now, "r1")
		s.relay("r1", full)
		s.wantIdle()
		then()
		if m := want[wire.SessionEnded](s, "portal ann"); m.Session != session {
			t.Errorf("%s: ann is told %+v", what, m)
		}
		s.sent = nil
		s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: session})
		session = s.meet("ann", "plant", wire.GrantID{1}, "r1")
	}
}

func TestSessionsOfARelayThatStaysAwayAreForgotten(t *testing.T) {
	s, grant := annAndPlant(t, "r1")
	s.meet("ann", "plant", grant, "r1")
	s.b.RelayDown(s.now, "r1")
	s.after(forgetTime)
	s.wantIdle()
	s.wantEmpty()
	if len(s.b.relays) != 0 {
		t.Errorf("%d relays are remembered", len(s.b.relays))
	}
}

func TestRelayThatEndsASession(t *testing.T) {
	s, grant := annAndPlant(t, "r1")
	id := s.meet("ann", "plant", grant, "r1")
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
		s, grant := annAndPlant(t, "r1")
		id := s.meet("ann", "plant", grant, "r1")
		s.b.Done(s.now, "plant", wire.SessionDone{Session: id, Reason: wire.ReasonIdle})
		then(s)
		if r := s.lastRecord(); r.Answer != audit.Ended || *r.Session != id || len(s.b.ending) != 0 {
			t.Errorf("%s: record %+v, %d pending", what, r, len(s.b.ending))
		}
	}
}

// A portal is told whether its tunnel may go on over another session: if the
// relay or the server let go of this one. If the other portal did, it is over.
func TestReasonsOfAnEndArePassingOrFinal(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(*script, wire.SessionID)
		want wire.Reason
	}{
		"a relay that stops":      {over(wire.ReasonShutdown), wire.ReasonShutdown},
		"a relay that forgets it": {over(wire.ReasonIdle), wire.ReasonIdle},
		"a relay may not refuse":  {over(wire.ReasonNotGranted), wire.ReasonCarrierLost},
		"nor revoke":              {over(wire.ReasonRevoked), wire.ReasonCarrierLost},
		"nor say nothing":         {over(wire.ReasonNone), wire.ReasonCarrierLost},
		"a portal that stops":     {done(wire.ReasonShutdown), wire.ReasonPeerOffline},
		"a portal that was idle":  {done(wire.ReasonIdle), wire.ReasonIdle},
		"a wrong peer":            {done(wire.ReasonWrongPeer), wire.ReasonWrongPeer},
		"a relay that lost it": {func(s *script, _ wire.SessionID) {
			s.b.RelayDown(s.now, "r1")
			s.relay("r1", ready)
		}, wire.ReasonCarrierLost},
		"a new key": {func(s *script, _ wire.SessionID) { s.b.Revoke(s.now, "plant") }, wire.ReasonRevoked},
	} {
		s, grant := annAndPlant(t, "r1")
		id := s.meet("ann", "plant", grant, "r1")
		c.end(s, id)
		if m := want[wire.SessionEnded](s, "portal ann"); m.Session != id || m.Reason != c.want {
			t.Errorf("%s: ann is told %v, want %v", what, m.Reason, c.want)
		}
	}
}

func over(r wire.Reason) func(*script, wire.SessionID) {
	return func(s *script, id wire.SessionID) { s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: id, Reason: r}) }
}

func done(r wire.Reason) func(*script, wire.SessionID) {
	return func(s *script, id wire.SessionID) { s.b.Done(s.now, "plant", wire.SessionDone{Session: id, Reason: r}) }
}
