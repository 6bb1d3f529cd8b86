package portmap

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

var (
	udp = Port{wire.CandidateUDP, 4000}
	tcp = Port{wire.CandidateTCP, 4001}
)

// scripted is a speaker that answers as a test says, and remembers what it was asked.
type scripted struct {
	asked   []Port
	times   []time.Duration // when
	near    []netip.AddrPort
	removed []Port
	answer  func(p Port) (grant, error)
	lost    bool
	began   time.Time
}

func (s *scripted) add(_ context.Context, p Port, near netip.AddrPort) (grant, error) {
	s.asked, s.times, s.near = append(s.asked, p), append(s.times, time.Since(s.began)), append(s.near, near)
	return s.answer(p)
}

func (s *scripted) remove(_ context.Context, p Port, _ netip.AddrPort) error {
	s.removed = append(s.removed, p)
	return nil
}

func (s *scripted) restarted() bool {
	lost := s.lost
	s.lost = false
	return lost
}

func newScripted() *scripted {
	return &scripted{began: time.Now(), answer: func(p Port) (grant, error) {
		return grant{netip.AddrPortFrom(netip.MustParseAddr("20.0.1.1"), p.Number), lease}, nil
	}}
}

// routerOf speaks the protocols of these speakers; nil: the router does not speak it.
func routerOf(speakers ...*scripted) *router {
	var list []protocol
	for i, s := range speakers {
		list = append(list, protocol{"protocol " + string(rune('A'+i)), func(context.Context, place) (speaker, error) {
			if s == nil {
				return nil, errSilent
			}
			return s, nil
		}})
	}
	return newRouter(place{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("192.168.0.2")}, list, slog.New(slog.DiscardHandler))
}

// runs has the router do what is due for so long.
func runs(t *testing.T, r *router, d time.Duration, wanted ...Port) {
	t.Helper()
	end := time.Now().Add(d)
	for steps := 0; ; steps++ {
		again := r.step(t.Context(), wanted)
		if steps > 10_000 {
			t.Fatal("it spins")
		}
		if again.After(end) {
			time.Sleep(time.Until(end)) // of the bubble's clock
			return
		}
		time.Sleep(time.Until(again))
	}
}

func TestMappingIsRenewedAtHalfOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		r := routerOf(s)
		runs(t, r, lease+time.Second, udp)
		if want := []time.Duration{0, lease / 2, lease}; !slices.Equal(s.times, want) {
			t.Errorf("asked at %v, want at %v", s.times, want)
		}
		if want := netip.AddrPortFrom(netip.MustParseAddr("20.0.1.1"), 4000); s.near[1] != want {
			t.Errorf("the renewal wished for %v, want what it had: %v", s.near[1], want)
		}
		if got := r.state(); got.Protocol != "protocol A" || len(got.Mappings) != 1 || got.Why != "" {
			t.Errorf("state = %+v", got)
		}
		r.step(t.Context(), nil)
		if !slices.Equal(s.removed, []Port{udp}) || len(r.state().Mappings) != 0 {
			t.Errorf("taken back: %v, left: %v", s.removed, r.state().Mappings)
		}
	})
}

func TestLeasesOfRoutersAreHeldToBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := 1000 * time.Hour
		s := newScripted()
		s.answer = func(p Port) (grant, error) {
			return grant{netip.AddrPortFrom(netip.MustParseAddr("20.0.1.1"), p.Number), given}, nil
		}
		r := routerOf(s)
		runs(t, r, time.Minute, udp)
		if got := r.state().Mappings[0].Lease; got != time.Hour {
			t.Errorf("a lease of %v is believed, want an hour at most", got)
		}
		given = 0
		runs(t, r, 2*time.Hour, udp)
		if most := int(2*time.Hour/minPause) + 2; len(s.asked) > most {
			t.Errorf("a router that gives no time was asked %d times in two hours, want %d at most", len(s.asked), most)
		}
	})
}

func TestRouterThatRefusesIsAskedByTheNextProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuses, maps := newScripted(), newScripted()
		refuses.answer = func(Port) (grant, error) { return grant{}, refusal{"not authorized"} }
		r := routerOf(nil, refuses, maps)
		runs(t, r, time.Second, udp, tcp)
		if got := r.state(); got.Protocol != "protocol C" || len(got.Mappings) != 2 {
			t.Errorf("state = %+v, want both ports mapped by the third", got)
		}
		if len(refuses.asked) != 1 {
			t.Errorf("who refuses was asked %d times", len(refuses.asked))
		}
	})
}

func TestRouterThatMapsNothingIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuses := newScripted()
		refuses.answer = func(Port) (grant, error) { return grant{}, refusal{"not authorized"} }
		r := routerOf(nil, refuses)
		runs(t, r, 24*time.Hour, udp, tcp)
		if n := len(refuses.asked); n < 20 || n > 30 {
			t.Errorf("asked %d times in a day, want about once an hour", n)
		}
		for _, want := range []string{"protocol A: no answer", "protocol B: the router refuses: not authorized"} {
			if got := r.state().Why; !strings.Contains(got, want) {
				t.Errorf("why = %q, want %q in it", got, want)
			}
		}
	})
}

func TestRouterThatRestartsIsAskedForAllAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		r := routerOf(s)
		runs(t, r, lease/4, udp, tcp)
		before, plain := len(s.asked), s.answer
		s.answer = func(p Port) (grant, error) {
			s.answer, s.lost = plain, true
			return plain(p)
		}
		runs(t, r, lease/4+time.Second, udp, tcp)
		if got := len(s.asked) - before; got != 4 {
			t.Errorf("asked %d times, want both at half of their life, and both again at once", got)
		}
		liar := newScripted()
		answer := liar.answer
		liar.answer = func(p Port) (grant, error) { liar.lost = true; return answer(p) }
		runs(t, routerOf(liar), time.Hour, udp)
		if most := int(time.Hour/minPause) + 2; len(liar.asked) > most {
			t.Errorf("a router that says with each answer that it has restarted was asked %d times an hour, want %d at most", len(liar.asked), most)
		}
	})
}

func TestMappingEndsWithItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		r := routerOf(s)
		runs(t, r, time.Second, udp)
		s.answer = func(Port) (grant, error) { return grant{}, errors.New("no answer") }
		runs(t, r, lease-2*time.Second, udp)
		if len(r.state().Mappings) != 1 {
			t.Error("the mapping is given up before its lease has ended")
		}
		runs(t, r, 2*time.Second, udp)
		if got := r.state(); len(got.Mappings) != 0 || got.Why == "" {
			t.Errorf("after its lease: %+v", got)
		}
		// A router that answers again gets asked again.
		s.answer = newScripted().answer
		runs(t, r, firstPause, udp)
		if len(r.state().Mappings) != 1 {
			t.Errorf("not mapped again: %+v", r.state())
		}
	})
}

func TestEpochShowsRestarts(t *testing.T) {
	for _, tt := range []struct {
		name           string
		pmp            bool
		passed         time.Duration
		before, server uint32
		want           bool
	}{
		{"both clocks go alike", false, time.Hour, 100, 3700, false},
		{"the router's is a little slow", false, time.Hour, 100, 3700 - 200, false},
		{"the router began anew", false, time.Hour, 10_000, 5, true},
		{"began anew, and has run for longer than before", false, 24 * time.Hour, 10, 3600, true},
		{"goes too fast", false, time.Minute, 10, 1000, true},
		{"a second back", false, 0, 100, 99, false},
		{"two seconds back", false, 0, 100, 98, true},
		{"NAT-PMP, alike", true, time.Hour, 100, 3700, false},
		{"NAT-PMP, an eighth slow", true, time.Hour, 100, 100 + 3150, false},
		{"NAT-PMP, too slow", true, time.Hour, 100, 100 + 3100, true},
		{"NAT-PMP, began anew", true, time.Hour, 10_000, 5, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			var e epoch
			e.take(tt.before, now, tt.pmp)
			if e.restarted() {
				t.Error("the first answer shows a restart")
			}
			e.take(tt.server, now.Add(tt.passed), tt.pmp)
			if got := e.restarted(); got != tt.want {
				t.Errorf("restarted = %t", got)
			}
		})
	}
}

// A router that maps, and whose answer does not come, is told that the mapping is not wanted.
func TestWhatMayBeMappedIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, portal := range map[string]func(t *testing.T) (r *router, mapped func() int){
		"PCP": func(t *testing.T) (*router, func() int) {
			h := newHome(t, false)
			h.answer(func(b []byte) []byte {
				if len(b) == pcpMapLen && len(h.mapped) > 0 {
					return nil
				}
				return b
			})
			return newRouter(here, protocolsAt(h.port, 0)[:1], slog.New(slog.DiscardHandler)), h.count
		},
		"NAT-PMP": func(t *testing.T) (*router, func() int) {
			h := newHome(t, true)
			h.answer(func(b []byte) []byte {
				if len(b) == pmpMapLen && len(h.mapped) > 0 {
					return nil
				}
				return b
			})
			return newRouter(here, protocolsAt(h.port, 0)[1:2], slog.New(slog.DiscardHandler)), h.count
		},
		"UPnP IGD": func(t *testing.T) (*router, func() int) {
			b := newBox(t, func(b *box) { b.done = func(name string) bool { return name == "AddPortMapping" } })
			return newRouter(here, protocolsAt(0, b.ssdp)[2:], slog.New(slog.DiscardHandler)), b.count
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, mapped := portal(t)
			for again := time.Now(); !again.After(time.Now()); {
				again = r.step(t.Context(), []Port{udp})
			}
			if r.mapped() || mapped() != 0 {
				t.Errorf("the portal knows of a mapping: %t; the router has %d", r.mapped(), mapped())
			}
		})
	}
}
