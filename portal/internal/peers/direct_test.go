package peers

import (
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/grant"
)

// ways returns the ways of a portal's carriers, direct ones and others.
func (p *portal) ways() (direct, relayed []Way) {
	p.w.t.Helper()
	for _, way := range p.only().Ways {
		if way.Path == wireName {
			direct = append(direct, way)
		} else {
			relayed = append(relayed, way)
		}
	}
	return direct, relayed
}

// opened are the searches that the portal's pool has opened.
func (p *portal) opened() []*seeker {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return slices.Clone(p.seekers)
}

// wires is how many connections on the direct way the portal has made.
func (p *portal) wires() (n int) {
	for _, k := range p.opened() {
		k.mu.Lock()
		n += k.made
		k.mu.Unlock()
	}
	return n
}

// lay makes the direct way of both portals open, or breaks it.
func (w *world) lay(open bool) {
	w.wire.set(!open, false)
	time.Sleep(time.Second)
}

// seen returns what is known of a portal's search.
func (p *portal) seen() Search {
	p.w.t.Helper()
	s := p.only().Direct
	if s == nil {
		p.w.t.Fatalf("%s looks for no direct ways", p.name)
	}
	return *s
}

// wantPath wants both portals' tunnel to be where it says, with as many carriers by relays.
func (w *world) wantPath(path string, relayed int) {
	w.t.Helper()
	for _, p := range []*portal{w.ann, w.plant} {
		if s := p.only(); s.Path != path {
			w.t.Errorf("%s: the path is %q, want %q: %+v", p.name, s.Path, path, s.Ways)
		}
		if _, list := p.ways(); len(list) != relayed {
			w.t.Errorf("%s: %d carriers by relays, want %d", p.name, len(list), relayed)
		}
	}
}

// A direct way that opens is taken, without the server; when it breaks, what runs goes on
// by the relay, which has stood by, and the search goes on, for ever.
func TestDirectWayIsTakenAndFallsBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		before := w.ann.only()
		w.requests()
		if list := w.plant.seen().Peers; len(list) != 1 || list[0].Address != ownAddr.String() || list[0].Origin != "own address" {
			t.Errorf("plant was told of %v", list)
		}
		for range 3 {
			w.lay(true)
			w.wantPath(wireName, 1)
			s.echoes(10 * hop)
			w.lay(false)
			w.wantPath(wayName, 1)
			s.echoes(10 * hop)
		}
		w.lay(true)
		w.wire.set(false, true) // it falls silent
		s.echoes(2 * time.Second)
		w.wantPath(wayName, 1)
		w.wire.set(true, false)
		time.Sleep(time.Hour)
		w.lay(true)
		w.wantPath(wireName, 1)
		s.echoes(10 * hop)
		if now := w.ann.only(); now.Tunnel != before.Tunnel {
			t.Errorf("another tunnel: %+v", now)
		}
		if list := w.requests(); len(list) > 0 {
			t.Errorf("the server was asked: %v", list)
		}
		w.wantSessions(w.session(before))
		s.close()
	}, "r1")
}

// A tunnel that has direct carriers alone, its relay being dead, gets another relay in reserve: where the
// direct way dies too nothing has to be looked for.
func TestDirectTunnelKeepsARelayInReserve(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.lay(true)
		w.relay("r1").set(true, false)
		s.echoes(10 * hop)
		time.Sleep(5 * time.Second)
		w.wantPath(wireName, 1)
		if _, list := w.ann.ways(); len(list) == 1 && list[0].Relay != "r2" {
			t.Errorf("in reserve: %+v", list)
		}
		w.requests()
		w.wire.set(true, false)
		s.echoes(10 * hop)
		if list := w.requests(); len(list) > 0 {
			t.Errorf("it had to be asked for a session: %v", list)
		}
		s.close()
	}, "r1", "r2")
}

// While the server is away and no relay is there, what runs on a direct way goes on, the
// portals look for a relay ever more rarely, and have one soon after one is back (G3).
func TestDirectWayNeedsNobody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.giveTickets(24 * time.Hour)
		s := w.talk()
		w.lay(true)
		w.serverGoes()
		w.relay("r1").set(true, false)
		for range 60 {
			time.Sleep(10 * time.Second)
			s.echoes(10 * hop)
		}
		w.wantPath(wireName, 0)
		w.requests()
		w.ann.stream(w.ann.mustTunnel(time.Second)).echoes(10 * hop) // and more is opened
		time.Sleep(10 * time.Minute)
		if n := len(w.requests()); n > 2*2*10 {
			t.Errorf("%d requests in ten minutes", n)
		}
		w.relay("r1").set(false, false) // by a ticket
		time.Sleep(time.Minute)
		w.wantPath(wireName, 1)
		w.serverComes()
		time.Sleep(2 * time.Minute)
		w.wantPath(wireName, 1)
		s.echoes(10 * hop)
		s.close()
	}, "r1")
}

// A peer is on this machine if both know the same name of it, which only who runs there
// knows; not if it says nothing, or something else.
func TestPeerOnThisMachineIsProven(t *testing.T) {
	for _, test := range []struct {
		ann, plant string
		here       bool
	}{{"m", "m", true}, {"m", "n", false}, {"", "", false}, {"m", "", false}, {"", "m", false}} {
		inWorld(t, func(t *testing.T, w *world) {
			w.ann.pool.Machine, w.plant.pool.Machine = test.ann, test.plant
			s := w.talk()
			time.Sleep(time.Second)
			for _, k := range append(w.ann.opened(), w.plant.opened()...) {
				if k.mu.Lock(); k.here != test.here {
					t.Errorf("%q and %q: %s takes its peer for one on its machine: %t", test.ann, test.plant, k.of.name, k.here)
				}
				k.mu.Unlock()
			}
			s.close()
		}, "r1")
	}
}

// A direct way that breaks as soon as something runs on it is tried ever more rarely, but again within maxLostPause: by then
// it may be a good one.
func TestDirectWayThatBreaksAtOnceIsTriedEverMoreRarely(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.wire.set(false, false)
		came := 0
		for range 600 {
			time.Sleep(time.Second)
			if list, _ := w.ann.ways(); len(list) > 0 {
				came++
			}
			w.wire.cut()
			s.echoes(time.Second)
		}
		if came < 25 || came > 40 {
			t.Errorf("it came %d times in ten minutes", came)
		}
		s.close()
	}, "r1")
}

// What a portal proves itself with is another from now on: its direct carriers are made anew, too, before they are left, so
// that nothing goes by the relay meanwhile, nor stands still where there is none (F46).
func TestDirectCarrierIsMadeAnewInTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.lay(true)
		w.relay("r1").set(true, false) // the direct way alone is left
		time.Sleep(time.Second)
		for range 3 {
			made := w.ann.wires() + w.plant.wires()
			w.ann.pool.Renewed()
			w.plant.pool.Renewed()
			for range 200 {
				time.Sleep(100 * time.Millisecond)
				s.echoes(10 * hop)
			}
			w.wantPath(wireName, 0)
			if n := w.ann.wires() + w.plant.wires() - made; n != 2 {
				t.Errorf("%d ends of carriers were made, want 2", n)
			}
			for _, p := range []*portal{w.ann, w.plant} {
				if ways, _ := p.ways(); len(ways) != 1 {
					t.Errorf("%s has %+v", p.name, ways)
				}
			}
		}
		s.close()
	}, "r1")
}

// The policy decides: "never" looks for no direct way and leaves the one there is, "only"
// lets nothing run by a relay.
func TestPolicyDecidesAboutPaths(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.setPaths(grant.DirectNever)
		s := w.talk()
		w.lay(true)
		w.wantPath(wayName, 1)
		if n := len(w.ann.opened()) + len(w.plant.opened()); n > 0 {
			t.Errorf("%d searches though direct ways are forbidden", n)
		}
		w.setPaths(grant.DirectAny)
		time.Sleep(time.Second)
		w.wantPath(wireName, 1)
		s.echoes(10 * hop)

		w.setPaths(grant.DirectNever)
		time.Sleep(time.Second)
		w.wantPath(wayName, 1)
		s.echoes(10 * hop)
		for _, k := range append(w.ann.opened(), w.plant.opened()...) {
			if k.mu.Lock(); !k.closed {
				t.Errorf("the search of %s goes on", k.of.name)
			}
			k.mu.Unlock()
		}

		w.setPaths(grant.DirectOnly)
		time.Sleep(time.Second)
		w.wantPath(wireName, 1)
		s.echoes(10 * hop)
		w.lay(false)
		began := time.Now()
		time.AfterFunc(20*time.Second, func() { w.wire.set(false, false) })
		s.echoes(30 * time.Second)
		if took := time.Since(began); took < 20*time.Second {
			t.Errorf("what is to go by direct ways only came back after %v, there was none for 20 s", took)
		}
		s.close()
	}, "r1")
}

// A revoked portal loses its tunnel, whatever carries it, and so do two that no grant
// joins any more their direct way (G6).
func TestRevocationHoldsOnDirectWays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.talk()
		w.lay(true)
		w.relay("r1").set(true, false) // the direct way alone is left
		time.Sleep(time.Second)
		w.wantPath(wireName, 0)
		w.ann.pool.Recheck = func([]*x509.Certificate) error { return errors.New("it is revoked") }
		began := time.Now()
		w.ann.pool.Review()
		synctest.Wait()
		time.Sleep(time.Second)
		if n := len(w.ann.tunnels()) + len(w.plant.tunnels()); n > 0 {
			t.Errorf("%d tunnels %v after the revocation", n, time.Since(began))
		}
	}, "r1")
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		w.lay(true)
		s.close()
		w.ungrant()
		w.ann.pool.Review()
		time.Sleep(15 * time.Second)
		w.wantPath(wayName, 1)
	}, "r1")
}
