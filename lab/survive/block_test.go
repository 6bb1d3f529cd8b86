package survive

import (
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// F29: what the network lets through becomes less, while traffic runs, and more again.
func TestNetworkLetsLittleThrough(t *testing.T) {
	w := newWorld(t, plan{carriers: overBoth})
	for _, c := range []struct {
		name  string
		rules []topo.Rule
	}{
		{"no UDP", []topo.Rule{topo.BlockUDP}},
		{"no UDP, and TCP to port 443 alone", []topo.Rule{topo.BlockUDP, topo.AllowTCP(443)}},
		{"TCP to port 443 alone", []topo.Rule{topo.AllowTCP(443)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.endures(t, w.letsLittleThrough(c.rules...))
		})
	}
}

// letsLittleThrough is the home network dropping all that some rules say.
func (w *world) letsLittleThrough(rules ...topo.Rule) fault {
	return fault{
		stall:  5 * time.Second,
		strike: func() { w.home.SetRules(rules...) },
		mend:   func() { w.home.SetRules() },
	}
}

// F54: ways appear and vanish, while traffic runs: packets that the relay's kernel forwards, and QUIC.
func TestWaysComeAndGo(t *testing.T) {
	w := newWorld(t, plan{carriers: overBoth, relays: []daemon.Option{daemon.InKernel("tc")}})
	switches := []struct {
		name  string
		rules []topo.Rule
	}{
		{"without TCP to the relays", []topo.Rule{topo.BlockTCPTo(w.relayAddrs()...)}},
		{"with both", nil},
		{"without UDP", []topo.Rule{topo.BlockUDP}},
		{"with both again", nil},
	}
	next := 0
	w.endures(t, fault{
		stall: 2 * time.Second, least: len(switches),
		strike: func() {
			s := switches[next%len(switches)]
			next++
			t.Logf("from now on %s", s.name)
			w.home.SetRules(s.rules...)
		},
	})
}
