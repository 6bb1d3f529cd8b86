package peers

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

func TestEveryPeerHasItsTurn(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 1000} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("p", i))
		}
		had := make(map[string]int)
		rounds := (n + maxWaits - 1) / maxWaits
		for i := range rounds {
			list := turn(names, i, maxWaits)
			if len(list) != min(n, maxWaits) {
				t.Fatalf("%d of %d peers at once, want %d", len(list), n, min(n, maxWaits))
			}
			for _, name := range list {
				had[name]++
			}
		}
		if len(had) != n {
			t.Errorf("%d of %d peers had a turn in %d rounds", len(had), n, rounds)
		}
	}
}

// F12: without a server two portals meet by themselves at the relay of a ticket,
// before anybody asks; and the tunnel is one like any other.
func TestPortalsMeetWithTickets(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.giveTickets(time.Hour)
		w.serverGoes()
		time.Sleep(2 * awayTime)
		s := w.ann.stream(w.ann.mustTunnel(0))
		s.echoes(time.Second)
		if a, b := w.ann.only(), w.plant.only(); a.Tunnel != b.Tunnel || !a.Opener || b.Opener {
			t.Errorf("%+v at ann, %+v at plant", a, b)
		}
		w.serverComes()
		time.Sleep(time.Minute)
		s.echoes(time.Second)
		s.close()
		if list := w.requests(); len(list) > 0 {
			t.Errorf("asked for sessions: %v", list)
		}
	}, "r1")
}

// Who wants a tunnel in the moment in which the server goes gets one, as soon as
// the other portal has noticed too.
func TestTunnelIsWantedAsTheServerGoes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.giveTickets(time.Hour)
		w.serverGoes()
		w.ann.mustTunnel(meetTime)
	}, "r1")
}

// A tunnel that was lost with the server and its relay comes back at the relay of
// a ticket.
func TestLostTunnelComesBackWithATicket(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		before := w.ann.only()
		w.giveTickets(time.Hour)
		w.serverGoes()
		w.relay("r1").set(true, false)
		s.echoes(2 * time.Second)
		if now := w.ann.only(); now.Tunnel != before.Tunnel || now.Relay != "r2" {
			t.Errorf("%+v before, %+v now", before, now)
		}
		s.close()
	}, "r1", "r2")
}

// While no server tells that a peer has moved, tunnels in which something is open
// are asked, though nobody says anything on them.
func TestBusyTunnelIsAskedWhileTheServerIsAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.giveTickets(time.Hour)
		w.serverGoes()
		time.Sleep(time.Second)
		w.relay("r1").set(false, true)
		time.Sleep(2 * checkTime)
		if now := w.ann.only(); now.Relay != "r2" {
			t.Errorf("the relay has been silent for %v, and ann has %+v", 2*checkTime, now)
		}
		s.close()
	}, "r1", "r2")
}

// Nobody waits who need not, or may not.
func TestTicketIsNotUsed(t *testing.T) {
	for why, c := range map[string]struct {
		life time.Duration
		then func(w *world)
	}{
		"the server is there": {time.Hour, func(*world) {}},
		"it is back": {time.Hour, func(w *world) {
			w.relay("r1").set(true, false) // nobody meets
			w.serverGoes()
			time.Sleep(time.Minute)
			w.relay("r1").set(false, false)
			w.serverComes()
			time.Sleep(time.Second)
		}},
		"it has ended":   {time.Second, func(w *world) { time.Sleep(2 * time.Second); w.serverGoes() }},
		"no grant joins": {time.Hour, func(w *world) { w.ungrant(); w.serverGoes() }},
	} {
		t.Run(why, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.giveTickets(c.life)
				c.then(w)
				w.relay("r1").tried()
				time.Sleep(time.Minute)
				if n := w.relay("r1").tried(); n > 0 {
					t.Errorf("the relay was dialled %d times", n)
				}
				w.ann.wantNothingLeft()
			}, "r1")
		})
	}
}

// F8: who waits at a relay that is gone asks ever more rarely; at one that is
// there a wait lasts.
func TestWaitsAreRare(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.giveTickets(time.Hour)
		w.mu.Lock()
		w.plant.tickets = nil // it never comes
		w.mu.Unlock()
		r := w.relay("r1")
		r.set(true, false)
		w.serverGoes()
		time.Sleep(time.Minute)
		if n := r.tried(); n < 12 || n > 60 {
			t.Errorf("%d dials in a minute at a relay that is gone", n)
		}
		r.set(false, false)
		time.Sleep(time.Minute)
		if n := r.tried(); n < 2 || n > 8 {
			t.Errorf("%d dials in a minute at a relay that is there", n)
		}
		_, err := w.ann.tunnel(time.Minute)
		wantUnavailable(t, err, wire.ReasonServerGone)
	}, "r1")
}
