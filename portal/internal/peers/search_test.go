package peers

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Only the connections broke: the way back is in the session there is, without
// the server.
func TestLostCarriersComeBackWhereTheyWere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		before := w.ann.only()
		w.requests()
		w.relay("r1").cut()
		s.echoes(graceTime)
		now := w.ann.only()
		if now.Tunnel != before.Tunnel || now.Session != before.Session || now.Recoveries != 1 || !now.Waiting.IsZero() {
			t.Errorf("%+v before, %+v now", before, now)
		}
		if list := w.requests(); len(list) > 0 {
			t.Errorf("asked for sessions: %v", list)
		}
		s.close()
	}, "r1")
}

// The relay is gone: the server is told which, and gives another at once.
func TestLostRelayIsReplaced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		before := w.ann.only()
		w.requests()
		w.relay("r1").set(true, false)
		s.echoes(time.Second)
		now := w.ann.only()
		if now.Tunnel != before.Tunnel || now.Relay != "r2" || now.Recoveries != 1 {
			t.Errorf("%+v before, %+v now", before, now)
		}
		for _, r := range w.requests() {
			if r.lost != "r1" {
				t.Errorf("%s has lost %q", r.by, r.lost)
			}
		}
		s.close()
	}, "r1", "r2")
}

// F8: while nothing is there, both portals try again and again, ever more
// rarely, and go on at once when something is.
func TestSearchBacksOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		r := w.relay("r1")
		r.set(true, false)
		w.requests()
		r.tried()
		time.Sleep(10 * time.Second)
		if n := len(w.requests()); n < 4 || n > 20 {
			t.Errorf("%d requests in the first 10 s", n)
		}
		if n := r.tried(); n < 8 || n > 80 {
			t.Errorf("%d tries in the first 10 s", n)
		}
		time.Sleep(30 * time.Second)
		if n := len(w.requests()); n < 10 || n > 2*30/2 {
			t.Errorf("%d requests in 30 s later, by two portals", n)
		}
		r.set(false, false)
		s.echoes(maxPause + time.Second)
		s.close()
	}, "r1")
}

// A change of the network, or a server that is back, ends the pause.
func TestNewsEndsThePause(t *testing.T) {
	for what, news := range map[string]func(w *world){
		"the network": func(w *world) { w.ann.pool.Changed(); w.plant.pool.Changed() },
		"the server":  func(w *world) { w.serverComes() },
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.talk()
				w.relay("r1").set(true, false)
				time.Sleep(linger / 2) // by now pauses are long
				w.relay("r1").set(false, false)
				news(w)
				s.echoes(time.Second)
				s.close()
			}, "r1")
		})
	}
}

// What is not found within the linger time is over; the next who asks gets
// another tunnel.
func TestStreamsAreResetWhenNoWayComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.relay("r1").set(true, false)
		began := time.Now()
		if err := <-s.end; err == nil {
			t.Error("the stream ended well")
		}
		if took := time.Since(began); took < linger || took > linger+time.Second {
			t.Errorf("reset after %v, want %v", took, linger)
		}
		w.relay("r1").set(false, false)
		w.ann.mustTunnel(maxPause + time.Second)
	}, "r1")
}

// Who has no tunnel to lose is told soon what is wrong, and a tight loop of them
// asks no more often for it.
func TestWhoWaitsIsToldWhy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.relay("r1").set(true, false)
		began := time.Now()
		_, err := w.ann.tunnel(time.Minute)
		wantUnavailable(t, err, wire.ReasonCarrierLost)
		if took := time.Since(began); took < tryTime/2 || took > tryTime+maxPause {
			t.Errorf("told after %v", took)
		}
		w.requests()
		began = time.Now()
		for range 1000 {
			if _, again := w.ann.tunnel(time.Minute); again != err {
				t.Fatalf("told %v", again)
			}
		}
		if list := w.requests(); len(list) > 0 || time.Since(began) > 0 {
			t.Errorf("%d requests, %v later", len(list), time.Since(began))
		}
		if at, said := w.ann.pool.Failed("plant"); said != err || time.Since(at) > time.Second {
			t.Errorf("failed at %v: %v", at, said)
		}
		w.relay("r1").set(false, false)
		time.Sleep(failedTime + time.Millisecond)
		w.ann.mustTunnel(time.Second)
	}, "r1")
}

// Without a grant any more nobody is asked.
func TestSearchEndsWithTheGrant(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.ungrant()
		w.requests()
		w.relay("r1").set(true, false)
		time.Sleep(linger / 2)
		if list := w.requests(); len(list) > 0 {
			t.Errorf("asked for sessions without a grant: %v", list)
		}
		<-s.end
	}, "r1", "r2")
}
