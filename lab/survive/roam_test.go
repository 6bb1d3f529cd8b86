package survive

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

// roaming gives laptop a second way out, by a mobile network with a NAT of its own.
func (w *world) roaming() {
	mobile := w.lab.Router("mobile", topo.Symmetric, topo.IPv4Only())
	w.forceAt(mobile)
	w.laptop.Host().Standby(mobile)
}

// F21: laptop leaves its Wi-Fi, address and all, and goes on by its mobile network; then it comes back.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.roaming()
		t.Run("away", func(t *testing.T) {
			w.endures(t, w.addressChanges())
		})
		t.Run("back", func(t *testing.T) {
			w.laptop.Host().Leave()
			f := w.addressChanges()
			f.strike, f.mend = f.mend, f.strike
			w.endures(t, f)
		})
	})
}

// addressChanges is laptop leaving its Wi-Fi; it is back when that is mended.
func (w *world) addressChanges() fault {
	host := w.laptop.Host()
	return fault{stall: 3 * time.Second, strike: host.Leave, mend: func() { host.SetUp(true) }}
}

// F21: the same from each IP version to each other, at either end of a connection.
func TestAddressChangesItsIPVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to versions
		factory  bool // moves, and not laptop
		short    bool // is told in short, too
	}{
		{v4, v4, true, false},
		{v4, v6, false, true}, {v4, v6, true, false},
		{v4, both, false, false}, {v4, both, true, false},
		{v6, v4, false, false}, {v6, v4, true, true},
		{v6, v6, false, false}, {v6, v6, true, false},
		{v6, both, false, false}, {v6, both, true, false},
		{both, v4, false, false}, {both, v4, true, false},
		{both, v6, false, false}, {both, v6, true, false},
		{both, both, false, false}, {both, both, true, false},
	} {
		if !c.short && !*full {
			continue
		}
		p := plan{carriers: overBoth, homeIP: c.from, officeIP: both}
		if c.factory {
			p.homeIP, p.officeIP = p.officeIP, p.homeIP
		}
		t.Run(fmt.Sprintf("%s to %s, factory moves %t", c.from, c.to, c.factory), func(t *testing.T) {
			w := newWorld(t, p)
			host := w.laptop.Host()
			if c.factory {
				host = w.factory.Host()
			}
			host.Standby(w.lab.Router("mobile", c.to.router(topo.Symmetric)...))
			w.endures(t, fault{stall: 3 * time.Second, rounds: 3, strike: host.Leave, mend: func() { host.SetUp(true) }})
		})
	}
}

// F22: the Wi-Fi stays up and leads nowhere; the system prefers the mobile network then. What was bound to the old address
// must not stick to it.
func TestOldInterfaceStaysUpButDead(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.roaming()
		w.endures(t, w.oldInterfaceDead(t))
	})
}

func (w *world) oldInterfaceDead(t *testing.T) fault {
	host := w.laptop.Host()
	return fault{
		stall: 5 * time.Second,
		strike: func() {
			w.force(topo.DropAll)
			host.Prefer(true)
		},
		mend: func() {
			w.force()
			host.Prefer(false)
			await.Until(t, "served by the first way again", func() error { return served(w.laptop, outPort, w.atFactory) })
		},
	}
}

// F23: the link is up for a second and down for a second, again and again. The traffic uses the seconds that it gets, and
// goes on soon after the last.
func TestLinkFlaps(t *testing.T) {
	t.Parallel()
	flaps := whole(3, 30)
	overEach(t, plan{}, func(t *testing.T, w *world) {
		before := w.opened()
		got := w.endures(t, w.linkFlaps(t, flaps))
		if n, most := w.opened()-before, 2*2*(flaps+1); n > most {
			t.Errorf("%d sessions were opened in %d s, want %d at most", n, 2*flaps, most)
		}
		if share := float64(got.Bytes) / (traffic.Rate / 8 * 4 * float64(flaps)); share < 0.25 {
			t.Errorf("%.2f of the rate was carried while the link was up, want 0.25", share)
		}
	})
}

func (w *world) linkFlaps(t *testing.T, flaps int) fault {
	host := w.laptop.Host()
	return fault{
		stall: time.Duration(2*flaps+3) * time.Second, after: 3 * time.Second, rounds: 1,
		strike: func() {
			for range flaps {
				host.SetUp(false)
				await.Passing(t, time.Second)
				host.SetUp(true)
				await.Passing(t, time.Second)
			}
			host.SetUp(false)
			await.Passing(t, time.Second)
			host.SetUp(true)
		},
	}
}
