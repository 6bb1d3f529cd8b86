package survive

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

// narrow is a world whose home is behind a provider's router. Its line to the internet carries 50 Mbit/s, and its MTU is
// about to shrink.
func narrow(carriers kind) plan {
	line := link.Shape{Rate: 50e6, Delay: 5 * time.Millisecond}
	return plan{carriers: carriers, provider: []topo.RouterOption{topo.Uplink(line)}}
}

// deaf keeps what routers say about packets that are too large from the portals and from the relays.
func (w *world) deaf() {
	w.force(topo.BlockICMPErrors)
	w.office.SetRules(topo.BlockICMPErrors)
	for _, r := range w.relays {
		r.Host().SetRules(topo.BlockICMPErrors)
	}
}

// F25: the way shrinks while traffic runs, and nobody is told.
func TestMTUShrinks(t *testing.T) {
	t.Parallel()
	for _, carriers := range []kind{overTLS, overQUIC} {
		t.Run(string(carriers), func(t *testing.T) {
			w := newWorld(t, narrow(carriers))
			w.deaf()
			w.endures(t, shrinks(w.provider))
		})
	}
}

// shrinks is the way through a router becoming narrow.
func shrinks(at *topo.Router) fault {
	return fault{
		stall: 3 * time.Second, rounds: 1, rate: 5e6,
		strike: func() { at.SetMTU(1280) },
		mend:   func() { at.SetMTU(1500) },
	}
}

// F24: the way is narrow from the start, and nobody is told, by relays and from portal to portal. It costs 3 s once, and then
// nothing more than where everybody is told.
func TestMTUBlackHole(t *testing.T) {
	t.Parallel()
	bytes := int64(whole(2_000_000, 10_000_000))
	for _, c := range []struct {
		carriers kind
		mtu      int
	}{{overTLS, 1280}, {overQUIC, 1280}, {overTLS, 1200}, {directQUIC, 1280}, {directTCP, 1280}, {directTCP, 1200}} {
		if c.mtu == 1200 && !*full {
			continue
		}
		t.Run(fmt.Sprintf("%s, %d bytes", c.carriers, c.mtu), func(t *testing.T) {
			took := make(map[bool]time.Duration) // by whether everybody is told
			for _, told := range []bool{true, false} {
				w := newWorld(t, narrow(c.carriers))
				if !told {
					w.deaf()
				}
				w.provider.SetMTU(c.mtu)
				start := time.Now()
				await.Until(t, "served", func() error { return served(w.laptop, outPort, w.atFactory) })
				t.Logf("everybody is told: %t: connected after %v", told, time.Since(start))
				if c.carriers.direct() {
					w.waitDirect(t)
				}
				first := w.transfer(t, bytes)
				later := []time.Duration{w.transfer(t, bytes), w.transfer(t, bytes)}
				took[told] = slices.Min(later) // the machine is busy
				if c.carriers.direct() {
					w.wantPath(t, "direct")
				}
				t.Logf("everybody is told: %t: first %d MB in %v, later ones in %v", told, bytes/1_000_000, first, later)
				if most := 2*slices.Max(later) + 3*time.Second + slack; first > most {
					t.Errorf("the first %d MB took %v, want %v at most: little more than later ones, and 3 s", bytes/1_000_000, first, most)
				}
			}
			// A busy machine moves it by a fifth either way, so one short run decides nothing.
			if ratio := took[true].Seconds() / took[false].Seconds(); *full && ratio < 0.8 {
				t.Errorf("it comes at %.2f of the speed that they have where everybody is told, want 0.8", ratio)
			}
		})
	}
}

// slack is what a busy machine may add.
const slack = 500 * time.Millisecond

// transfer carries a checked stream of that many bytes from laptop to factory, and the same back, and says how long it took.
func (w *world) transfer(t *testing.T, bytes int64) time.Duration {
	t.Helper()
	p := w.out(t)
	defer p.Client.Close()
	defer p.Service.Close()
	return carry(t, p, bytes, await.Patience)
}

// carry carries a checked stream of that many bytes over a connection, and the same back.
func carry(t *testing.T, p traffic.Pair, bytes int64, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	if err := errors.Join(p.Client.SetDeadline(start.Add(limit)), p.Service.SetDeadline(start.Add(limit))); err != nil {
		t.Fatal(err)
	}
	there, back := meter.Stream{Bytes: bytes}.Exchange(t.Context(), p.Client, p.Service)
	if err := errors.Join(there.Check(), back.Check()); err != nil {
		t.Error(err)
	}
	return time.Since(start)
}
