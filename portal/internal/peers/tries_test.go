package peers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// giveStrangers gives ann tickets of every relay for so many other peers, none of which ever comes.
func (w *world) giveStrangers(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		name := fmt.Sprint("stranger-", i)
		for _, r := range w.relays {
			id := ticket.Session(wire.NewSecret(), w.ann.name, name, time.Now().Add(time.Hour))
			w.ann.tickets = append(w.ann.tickets, wire.Ticket{Session: id, Peer: name, Relay: wire.RelayAccess{Name: r.name}})
		}
	}
}

// F8: however many peers a portal looks for, it tries relays that are gone once a second at most, all of them together; and
// when they are back it goes on with everybody.
func TestManyPeersTryDeadRelaysNoOftenerThanOne(t *testing.T) {
	const strangers, outage = 40, 40 * time.Second
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.giveTickets(time.Hour)
		w.giveStrangers(strangers)
		w.mu.Lock()
		w.plant.tickets = nil // it looks for ann by its session alone
		w.mu.Unlock()
		for _, r := range w.relays {
			r.set(true, false)
		}
		w.serverGoes()
		time.Sleep(awayTime)
		var tries int
		for _, r := range w.relays {
			r.tried()
		}
		time.Sleep(outage)
		for _, r := range w.relays {
			tries += r.tried()
		}
		// Of two portals, and what each relay has free.
		if most := 2*int(outage/tryEvery) + 2*freeTries*len(w.relays); tries > most || tries < most/4 {
			t.Errorf("%d tries in %v, want %d at most, and not few", tries, outage, most)
		}
		for _, r := range w.relays {
			r.set(false, false)
		}
		s.echoes(time.Duration(len(w.relays)+2) * tryEvery * 5 / 4) // each relay has had its turn by then
		time.Sleep(5 * time.Second)
		for _, r := range w.relays {
			if n := r.tried(); n < strangers {
				t.Errorf("%d tries at %s since it is back, want those for %d peers", n, r.name, strangers)
			}
		}
		s.close()
	}, "r1", "r2", "r3")
}

// waits has so many wait for a turn at a relay, again and again until ctx ends, and counts the turns.
func (s *tries) waits(ctx context.Context, waiters int, relay string) (count *atomic.Int64, all *sync.WaitGroup) {
	count, all = new(atomic.Int64), new(sync.WaitGroup)
	for range waiters {
		all.Go(func() {
			for s.wait(ctx, relay) == nil {
				count.Add(1)
			}
		})
	}
	return count, all
}

// Relays take turns: who waits at one of them alone has as many as hundreds who wait at another.
func TestRelaysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s tries
		s.init()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		crowd, all := s.waits(ctx, 300, "crowded")
		alone, one := s.waits(ctx, 1, "lonely")
		all.Wait()
		one.Wait()
		a, b := crowd.Load()-freeTries, alone.Load()-freeTries
		if a+b > 120 || a+b < 95 {
			t.Errorf("%d turns in 2 minutes, want one in 1 to 1.25 s", a+b)
		}
		if a-b > 2 || b-a > 2 {
			t.Errorf("%d turns for 300 at one relay, %d for one at another", a, b)
		}
	})
}

// Who gives up takes no turn from others.
func TestWhoGivesUpTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s tries
		s.init()
		ctx, cancel := context.WithCancelCause(t.Context())
		for range freeTries + 1 { // and the first turn
			if err := s.wait(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
		}
		gone, all := s.waits(ctx, 100, "r")
		synctest.Wait()
		why := errors.New("not wanted any more")
		cancel(why)
		all.Wait()
		if n := gone.Load(); n > 0 {
			t.Errorf("%d turns for those who gave up", n)
		}
		if err := s.wait(ctx, "r"); !errors.Is(err, why) {
			t.Errorf("who must not wait is told %v", err)
		}
		began := time.Now()
		if err := s.wait(t.Context(), "r"); err != nil || time.Since(began) > tryEvery*5/4 {
			t.Errorf("the next has its turn after %v, %v", time.Since(began), err)
		}
	})
}

// What is heard of a relay, or a change of the network, lets all go on, spread a little; what is heard of another does not.
func TestAnAnswerLetsAllGoOn(t *testing.T) {
	for what, news := range map[string]func(s *tries){
		"an answer":   func(s *tries) { s.heard("r") },
		"the network": func(s *tries) { s.again() },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many = 200
				var s tries
				s.init()
				for range freeTries {
					s.note("r")
				}
				if s.silent("r") {
					t.Error("silent at once")
				}
				time.Sleep(tryEvery)
				if !s.silent("r") || s.silent("other") {
					t.Error("not found to be silent, or another is")
				}
				var waiting sync.WaitGroup
				var on atomic.Int64
				for range many {
					waiting.Go(func() {
						if s.wait(t.Context(), "r") == nil {
							on.Add(1)
						}
					})
				}
				s.heard("other")
				time.Sleep(time.Second)
				if n := on.Load(); n > 1 {
					t.Errorf("%d go on without an answer", n)
				}
				began := time.Now()
				news(&s)
				waiting.Wait()
				if took := time.Since(began); took < many*spreadEach/2 || took > (many+1)*spreadEach {
					t.Errorf("all went on within %v, want them spread over %v", took, many*spreadEach)
				}
				if n := on.Load(); n != many || s.silent("r") {
					t.Errorf("%d of %d go on; silent: %t", n, many, s.silent("r"))
				}
			})
		})
	}
}

// Relays that nobody tries any more are forgotten.
func TestRelaysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s tries
		s.init()
		for i := range 1000 {
			s.note(fmt.Sprint("r", i))
			time.Sleep(time.Second)
		}
		if n := len(s.relays); n > int(forgetTime/time.Second)+2 {
			t.Errorf("%d relays are remembered", n)
		}
	})
}
