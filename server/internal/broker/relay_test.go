package broker

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

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
	s, id := annAndPlant(t)
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
		s, id := annAndPlant(t, "r1")
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

// F52, 1,000 rounds: a relay that answers within 5 ms of the deadline, before or
// after it, and portals that ask, leave and give up meanwhile. When all is said,
// the relay holds the sessions that the server knows, and no other.
func TestRelayAndServerAgreeAfterAnyRace(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s, id := annAndPlant(t, "r1")
	holds := make(map[wire.SessionID]bool) // the relay's own state
	var late []wire.SessionID              // questions that it has not answered yet
	read := func() {
		for _, m := range s.sent {
			switch m := m.m.(type) {
			case wire.CreateSession:
				late = append(late, m.ID)
			case wire.EndSession:
				if i := slices.Index(late, m.ID); i >= 0 {
					// They cross: the answer is on its way, and the relay ends it
					// when it reads this.
					s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: m.ID, TCP: 20001})
					late = slices.Delete(late, i, i+1)
				}
				delete(holds, m.ID)
				s.b.FromRelay(s.now, "r1", wire.SessionOver{ID: m.ID})
			}
		}
		s.sent = nil
	}
	answer := func() {
		for _, id := range late {
			holds[id] = true
			s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: id, TCP: 20001})
		}
		late = nil
		for len(s.sent) > 0 {
			read()
		}
	}
	for round := range 1000 {
		s.open("ann", "plant", id, uint32(round+1))
		if random.IntN(3) == 0 {
			s.open("plant", "ann", id, uint32(round+1))
		}
		read()
		delay := AskTimeout + time.Duration(random.IntN(11)-5)*time.Millisecond
		if random.IntN(10) == 0 {
			s.portals("ann") // connected anew
			read()
		}
		s.after(delay)
		if random.IntN(2) == 0 {
			answer()
			s.after(AskTimeout)
		}
		read()
		answer()
		s.after(avoidTime)
		read()
		answer()
		if len(holds) != len(s.b.sessions) {
			t.Fatalf("round %d: the relay holds %d sessions, the server knows %d", round, len(holds), len(s.b.sessions))
		}
		for id := range holds {
			if b := s.b.sessions[id]; b == nil || !b.open {
				t.Fatalf("round %d: the relay holds %v, of which the server knows %+v", round, id, b)
			}
		}
		if random.IntN(2) == 0 {
			for id := range holds {
				s.b.Done(s.now, "ann", wire.SessionDone{Session: id})
			}
			read()
		}
	}
	for id := range holds {
		s.b.Done(s.now, "ann", wire.SessionDone{Session: id})
	}
	s.wantEmpty()
}

func TestLyingRelayIsDroppedAndAnotherAsked(t *testing.T) {
	for what, m := range map[string]wire.SessionReady{
		"port below its range":  {TCP: 53},
		"port above its range":  {TCP: 20005, UDP: 21000},
		"port one below":        {TCP: 19999},
		"no port and no shared": {},
	} {
		s, id := annAndPlant(t)
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
	s, grant := annAndPlant(t, "r1")
	id := s.meet("ann", "plant", grant, "r1")
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

// F2: a relay whose machine has died is noticed by who loses it.
func TestRelayThatPortalsLoseIsProbed(t *testing.T) {
	s := newScript(t, 10)
	id, other := s.grant(1, "ann", "plant"), s.grant(2, "ann", "bo")
	s.portals("ann", "bo", "plant")
	s.relay("r1", ready)
	s.meet("ann", "plant", id, "r1")
	lost := func(name, peer string, id wire.GrantID, relay string) {
		s.b.Open(s.now, name, wire.OpenSession{Request: 1, Peer: peer, Grant: id, Lost: relay})
	}
	lost("ann", "bo", other, "r1")     // they have never met there
	lost("ann", "plant", id, "nobody") // there is none such
	if len(s.probed) > 0 {
		t.Errorf("%q were probed without a reason", s.probed)
	}
	for range 3 { // both say so, again and again
		lost("ann", "plant", id, "r1")
		lost("plant", "ann", id, "r1")
	}
	if want := []string{"r1"}; !slices.Equal(s.probed, want) {
		t.Errorf("%q were probed, want %q", s.probed, want)
	}
	s.now = s.now.Add(probePause)
	lost("ann", "plant", id, "r1")
	if len(s.probed) != 2 {
		t.Errorf("probed %d times, want once more", len(s.probed))
	}
}
