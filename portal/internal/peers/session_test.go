package peers

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// The tunnel moves to the session that replaces its own, and the old one is given
// back; streams notice nothing.
func TestReplacedSessionIsLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		before := w.ann.only()
		old := w.session(before)
		next := w.meet(w.ann, w.relay("r2"), old)
		time.Sleep(time.Second)
		s.echoes(time.Second)
		for _, p := range []*portal{w.ann, w.plant} {
			if now := p.only(); now.Tunnel != before.Tunnel || now.Session != next.String() || now.Relay != "r2" {
				t.Errorf("%s: %+v, want the same tunnel in session %v", p.name, now, next)
			}
		}
		w.wantSessions(next)
		if list := w.requests(); len(list) != 1 {
			t.Errorf("asked for sessions: %v, want the first only", list)
		}
		s.close()
	}, "r1", "r2")
}

// Both portals meet in two places at once: neither takes the other for one that
// has begun anew. There may be two tunnels then, and what is open in either goes
// on.
func TestPortalsMeetInTwoPlacesAtOnce(t *testing.T) {
	for how, meet := range map[string]func(w *world){
		"each has asked for one": func(w *world) {
			w.meet(w.ann, w.relay("r1"), wire.SessionID{})
			w.meet(w.plant, w.relay("r2"), wire.SessionID{})
		},
		"the second replaces the first": func(w *world) {
			w.meet(w.ann, w.relay("r2"), w.meet(w.ann, w.relay("r1"), wire.SessionID{}))
		},
		"with tickets": func(w *world) {
			w.giveTickets(time.Hour)
			w.serverGoes()
		},
	} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				meet(w)
				a, b := w.ann.stream(w.ann.mustTunnel(meetTime)), w.plant.stream(w.plant.mustTunnel(meetTime))
				for range 5 {
					a.echoes(time.Second)
					b.echoes(time.Second)
					time.Sleep(time.Second)
				}
				if a, b := w.ann.tunnels(), w.plant.tunnels(); !slices.Equal(a, b) {
					t.Errorf("ann has %v, plant %v", a, b)
				}
				a.close()
				b.close()
			}, "r1", "r2")
		})
	}
}

// The server may end a session for good: then nothing goes on that was in it. Or
// for a reason that passes: then the tunnel looks for another.
func TestSessionThatTheServerEnds(t *testing.T) {
	for reason, goesOn := range map[wire.Reason]bool{
		wire.ReasonGrantRemoved: false, wire.ReasonRevoked: false,
		wire.ReasonShutdown: true, wire.ReasonLifetime: true,
	} {
		t.Run(reason.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.talk()
				before := w.ann.only()
				w.end(w.session(before), reason)
				synctest.Wait()
				if !goesOn {
					if err := <-s.end; err == nil {
						t.Error("the stream ended well")
					}
					time.Sleep(time.Second)
					w.ann.wantNothingLeft()
					w.plant.wantNothingLeft()
					return
				}
				s.echoes(time.Second)
				time.Sleep(graceTime + time.Second)
				if now := w.ann.only(); now.Tunnel != before.Tunnel || now.Session == before.Session {
					t.Errorf("%+v before, %+v now", before, now)
				}
				s.close()
			}, "r1")
		})
	}
}
