package survive

import (
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// F1 and G4: the relay is killed, and there is another.
func TestRelayKilled(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) { w.endures(t, w.relayKilled(t)) })
}

func (w *world) relayKilled(t *testing.T) fault {
	var killed *daemon.Relay
	return fault{
		stall: 5 * time.Second, p95: 3 * time.Second,
		strike: func() { killed = w.inUse(t); killed.Kill() },
		mend:   func() { killed.Start() },
	}
}

// F2: the relay's machine is gone without a word.
func TestRelaySilent(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) { w.endures(t, w.relaySilent(t)) })
}

func (w *world) relaySilent(t *testing.T) fault {
	var silent *daemon.Relay
	return fault{
		stall:  6 * time.Second,
		strike: func() { silent = w.inUse(t); silent.Host().SetRules(topo.DropAll) },
		mend:   func() { silent.Host().SetRules(); silent.WaitReady() },
	}
}

// F8: there is no relay at all for a while. Portals must not hammer at those that are gone.
func TestAllRelaysDown(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.endures(t, w.allRelaysDown(t, whole(6*time.Second, time.Minute)))
	})
}

func (w *world) allRelaysDown(t *testing.T, outage time.Duration) fault {
	return fault{
		stall: outage + 5*time.Second, rounds: 3,
		strike: func() {
			for _, r := range w.relays {
				r.Kill()
			}
			count := w.countArrivals(t)
			await.Passing(t, outage)
			// Each of two portals tries once a second, and four times more at each relay, in a handful of packets: it dials in
			// two modes, and asks for a UDP leg until it gives up.
			const packets = 2 * 8
			got, most := count(), packets*(4*2+uint64(outage.Seconds()))
			t.Logf("relays that are gone for %v got %v", outage, got)
			if n := got.tries(); n > most {
				t.Errorf("relays that are gone for %v were tried with %d packets, want %d at most", outage, n, most)
			}
			for _, r := range w.relays {
				r.Launch()
			}
		},
		mend: w.waitReady,
	}
}

// F41: a relay that is asked to stop hands its sessions over first, however many streams they have, takes no new ones, and
// goes.
func TestRelayAskedToStop(t *testing.T) {
	t.Parallel()
	const streams = 100
	overEach(t, plan{}, func(t *testing.T, w *world) {
		f := w.relayAskedToStop(t)
		f.many = streams
		w.endures(t, f)
	})
}

func (w *world) relayAskedToStop(t *testing.T) fault {
	var stopped *daemon.Relay
	return fault{
		stall: time.Second,
		strike: func() {
			stopped = w.inUse(t)
			start := time.Now()
			stopped.Process().Signal(syscall.SIGTERM)
			select {
			case <-stopped.Process().Done():
			case <-time.After(30 * time.Second):
				t.Fatalf("%s still runs 30 s after SIGTERM", stopped.Name())
			}
			t.Logf("%s ended after %v", stopped.Name(), time.Since(start))
			if status := stopped.Process().Wait(); status != 0 {
				t.Errorf("%s ended with status %d, want 0", stopped.Name(), status)
			}
			if other := w.inUse(t); other == stopped {
				t.Errorf("the tunnel is still said to be at %s, which has stopped", stopped.Name())
			}
		},
		mend: func() { stopped.Start() },
	}
}

// F41: whoever does not want to wait says so twice.
func TestRelayAskedTwiceToStop(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		var stopped *daemon.Relay
		w.endures(t, fault{
			stall: 5 * time.Second,
			strike: func() {
				stopped = w.inUse(t)
				stopped.Process().Signal(syscall.SIGTERM)
				stopped.WaitLog("relay drains")
				stopped.Process().Signal(syscall.SIGTERM)
				select {
				case <-stopped.Process().Done():
				case <-time.After(time.Second):
					t.Errorf("%s still runs 1 s after a second SIGTERM", stopped.Name())
				}
			},
			mend: func() { stopped.Kill(); stopped.Start() },
		})
	})
}

// F51: a relay that is stopped again and again for 2 s is not fled from each time more than once.
func TestRelayStalls(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) { w.endures(t, w.relayStalls(t)) })
}

func (w *world) relayStalls(t *testing.T) fault {
	var before int
	return fault{
		stall: 3 * time.Second, rounds: 50,
		strike: func() {
			before = w.opened()
			stopped := w.inUse(t)
			stopped.Suspend()
			await.Passing(t, 2*time.Second)
			stopped.Resume()
		},
		mend: func() {
			if n := w.opened() - before; n > 1 {
				t.Errorf("%d sessions were opened for one stall, want 1 at most", n)
			}
		},
	}
}

// F51: a relay that gets a tenth of a processor is slow, and no reason to flee again and again.
func TestRelayStarves(t *testing.T) {
	t.Parallel()
	const most = 2 // sessions more: one portal may be led away, and back
	overEach(t, plan{}, func(t *testing.T, w *world) {
		var before int
		w.endures(t, fault{
			stall: 3 * time.Second, rate: 2e6, rounds: 3,
			strike: func() {
				before = w.opened()
				starved := w.inUse(t)
				for until := time.Now().Add(whole(3*time.Second, 20*time.Second)); time.Now().Before(until); {
					starved.Suspend()
					await.Passing(t, 90*time.Millisecond)
					starved.Resume()
					await.Passing(t, 10*time.Millisecond)
				}
			},
			mend: func() {
				if n := w.opened() - before; n > most {
					t.Errorf("%d sessions were opened, want %d at most", n, most)
				}
			},
		})
	})
}
