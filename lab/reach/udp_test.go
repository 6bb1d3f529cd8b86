package reach

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// soon is how long a portal may take to be connected where TCP is dropped without a word: two ports are dialled over
// TCP, 300 ms apart, and then UDP.
const soon = 2 * time.Second

// TestNoTCP: a firewall drops all TCP without a word. A portal joins, connects and forwards all the same, over UDP; at its
// next start it does not wait for TCP; and once TCP passes it goes back to that.
func TestNoTCP(t *testing.T) {
	w := newWorld(t, 443)
	w.hotel.SetRules(topo.BlockTCP)
	laptop := w.Join(w.laptop, daemon.Set("servers", []string{w.Server.Host().Addr().String()}))
	w.wantServer(laptop, "443", "udp")
	w.carries(laptop, "relay-udp")
	if text := laptop.Run("status"); !strings.Contains(text, ":443 over UDP, connected for") {
		t.Errorf("status does not say that it is over UDP:\n%s", text)
	}
	says(t, laptop, ":443 over UDP since", ":443: no answer within 5s; over UDP it is reached")
	first := w.took(laptop)
	laptop.Restart()
	w.wantServer(laptop, "443", "udp")
	again := w.took(laptop)
	t.Logf("connected after %v, and after %v at the second start", first, again)
	if first > soon || again > first {
		t.Errorf("connected after %v, and after %v at the second start; want less than %v, and less than that", first, again, soon)
	}
	w.Server.Stop() // which says so
	laptop.WaitLog("server connection lost")
	w.Server.Launch()
	laptop.WaitConnected()
	w.wantServer(laptop, "443", "udp")
	w.hotel.SetRules()
	laptop.Restart()
	w.wantServer(laptop, "443", "tcp")
}

// TestPortIsRemembered: where TCP to port 80 alone passes, a portal tries that first at its second start.
func TestPortIsRemembered(t *testing.T) {
	w := newWorld(t, 80)
	w.hotel.SetRules(topo.AllowTCP(80), topo.BlockUDP)
	laptop := w.Portal(w.laptop, daemon.Set("servers", []string{w.Server.Host().Addr().String()}))
	w.wantServer(laptop, "80", "tcp")
	laptop.Stop()
	first := w.dropped()
	if first == 0 {
		t.Error("the firewall has dropped nothing: port 443 was not tried first")
	}
	took := w.took(laptop)
	laptop.Start()
	w.wantServer(laptop, "80", "tcp")
	again := w.took(laptop)
	t.Logf("connected after %v, and after %v at the second start", took, again)
	if n := w.dropped() - first; n != 0 {
		t.Errorf("the firewall has dropped %d packets of the second start", n)
	}
	if took < 300*time.Millisecond || again > took {
		t.Errorf("connected after %v, and after %v at the second start", took, again)
	}
}

// wantServer fails the test unless a portal has reached the server at a port, over "tcp" or "udp".
func (w *world) wantServer(p *daemon.Portal, port, transport string) {
	w.t.Helper()
	s := p.Status().Server
	if !s.Connected || s.Transport != transport || !strings.HasSuffix(s.Address, ":"+port) {
		w.t.Errorf("the server is reached at %s over %s, want port %s over %s", s.Address, s.Transport, port, transport)
	}
}

var logged = regexp.MustCompile(`(?m)^time=(\S+) .*msg="(portal running|connected to server)"`)

// took returns how long it took from a portal's last start until it was connected, as its log says.
func (w *world) took(p *daemon.Portal) time.Duration {
	w.t.Helper()
	var began, up time.Time
	for _, m := range logged.FindAllStringSubmatch(p.Log(), -1) {
		at, err := time.Parse(time.RFC3339, m[1])
		if err != nil {
			w.t.Fatal(err)
		}
		if m[2] == "portal running" {
			began = at
		} else {
			up = at
		}
	}
	if !up.After(began) {
		w.t.Fatalf("the log does not say when it was connected:\n%s", p.Log())
	}
	return up.Sub(began)
}

var counted = regexp.MustCompile(`counter packets (\d+) bytes \d+ drop`)

// dropped returns how many packets going out the hotel's firewall has dropped.
func (w *world) dropped() (n int) {
	w.t.Helper()
	for _, m := range counted.FindAllStringSubmatch(w.hotel.Run("nft", "list", "chain", "inet", "firewall", "out"), -1) {
		packets, err := strconv.Atoi(m[1])
		if err != nil {
			w.t.Fatal(err)
		}
		n += packets
	}
	return n
}
