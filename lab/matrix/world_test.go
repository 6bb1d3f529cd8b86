package matrix

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

var full = flag.Bool("full", false, "have every pair meet 30 times, which takes most of an hour")

const (
	// delay is that of each site's line, one way; servers and relays have none. It is long beside what a busy machine
	// takes for its own part.
	delay = 40 * time.Millisecond
	// roundTrip is that between two sites, by the relay and directly.
	roundTrip = 4 * delay
)

// Ports of the world.
const (
	entryPort   = 7000 // of the first exit; others follow
	servicePort = 7100 // for the first entry; others follow
	echoPort    = 7007
)

// kind is a kind of site.
type kind struct {
	name string
	nats []topo.NAT  // the provider's first; none: its addresses are public
	v4   bool        // it has IPv4
	v6   bool        // it has IPv6
	wall bool        // nothing that was not asked for comes in by IPv6, nor by IPv4 if there is no NAT
	rule []topo.Rule // of the router before the portal
}

// sides are the kind's by IP version, which it has.
func (k kind) sides() (list map[string]side) {
	list = make(map[string]side)
	if k.v4 {
		list["IPv4"] = behind(k.nats...)
	}
	if k.v6 {
		list["IPv6"] = open
	}
	if k.wall && k.v4 && len(k.nats) == 0 {
		list["IPv4"] = guarded
	}
	if k.v6 && (k.wall || len(k.nats) > 0) { // a router with a NAT lets in nothing unasked by IPv6
		list["IPv6"] = guarded
	}
	return list
}

// meets says what the theory says of two sites that share nothing.
func (k kind) meets(o kind) bool {
	others := o.sides()
	for version, s := range k.sides() {
		if other, ok := others[version]; ok && s.meets(other) {
			return true
		}
	}
	return false
}

// site is a portal and what stands before it.
type site struct {
	*daemon.Portal
	kind    kind
	routers []*topo.Router
}

// world has the portals of both sides, which all may reach those of the other.
type world struct {
	*daemon.Network
	lab   *topo.Lab
	began time.Time
	relay *daemon.Relay
	a, b  []*site

	services [][]net.Listener // at b, by b and a
	options  []daemon.Option  // of all portals
	near     bool             // sites have no line that delays
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l := topo.New(t, topo.NoCapture())
	w := &world{lab: l, began: time.Now(), Network: daemon.New(t, l.Public("server"))}
	w.relay = w.Relay(l.Public("relay"))
	return w
}

// site adds a site with a line of its own.
func (w *world) site(name string, k kind) *site {
	s := &site{kind: k}
	var options []topo.RouterOption
	var families topo.NodeOption
	switch {
	case !k.v6:
		families = topo.IPv4Only()
	case !k.v4:
		families = topo.IPv6Only()
	}
	if families != nil {
		options = append(options, families)
	}
	parent := w.lab.Router
	layers := max(len(k.nats), 1)
	for i := range layers {
		more := options[:len(options):len(options)]
		switch {
		case i > 0: // a provider's NAT is before it
			parent = s.routers[i-1].Router
		case !w.near:
			more = append(more, topo.Uplink(link.Shape{Delay: delay}))
		}
		if i < len(k.nats) {
			more = append(more[:len(more):len(more)], k.nats[i])
		}
		if i < layers-1 {
			more = append(more[:len(more):len(more)], topo.LAN("100.64.0.0/24"))
		} else {
			for _, r := range k.rules() {
				more = append(more[:len(more):len(more)], r)
			}
		}
		s.routers = append(s.routers, parent(fmt.Sprintf("%s-%d", name, i), more...))
	}
	s.Portal = w.portal(s.routers[layers-1].Host(name))
	return s
}

// shared adds a site to each side, whose first NAT is the same; the hosts themselves are behind it if there is no other.
func (w *world) shared(k kind) {
	i := len(w.a)
	options := []topo.RouterOption{topo.Uplink(link.Shape{Delay: delay}), topo.IPv4Only(), k.nats[0]}
	if len(k.nats) > 1 {
		options = append(options, topo.LAN("100.64.0.0/24"))
	}
	provider := w.lab.Router(fmt.Sprintf("provider-%d", i), options...)
	for name, list := range map[string]*[]*site{"a": &w.a, "b": &w.b} {
		s := &site{kind: k, routers: []*topo.Router{provider}}
		last := provider
		for _, nat := range k.nats[1:] {
			last = last.Router(fmt.Sprintf("%s-%d-home", name, i), topo.IPv4Only(), nat)
			s.routers = append(s.routers, last)
		}
		s.Portal = w.portal(last.Host(fmt.Sprintf("%s-%d", name, i)))
		*list = append(*list, s)
	}
}

func (k kind) rules() []topo.Rule {
	if k.wall {
		return append(k.rule[:len(k.rule):len(k.rule)], topo.DropUnsolicited)
	}
	return k.rule
}

// portal starts a portal that looks for direct paths.
func (w *world) portal(host *topo.Host) *daemon.Portal {
	server := w.Server.Host()
	servers := []string{netip.AddrPortFrom(server.Addr4(), 443).String(), netip.AddrPortFrom(server.Addr6(), 443).String()}
	return w.Portal(host, append(w.options, daemon.Set("direct", true), daemon.Set("servers", servers))...)
}

// allow lets the first side's portals reach services of the second's, and waits until they may.
func (w *world) allow(t *testing.T) {
	t.Helper()
	var policy strings.Builder
	for j, b := range w.b {
		b.Host().EchoUDP(echoPort)
		w.services = append(w.services, nil)
		for i, a := range w.a {
			w.services[j] = append(w.services[j], b.Host().Listen(servicePort+uint16(i)))
			for scheme, to := range map[string]uint16{"tcp": servicePort + uint16(i), "udp": echoPort} {
				fmt.Fprintf(&policy, "[[forward]]\nname = \"%s-%s-%s\"\nfrom = \"%s %s://127.0.0.1:%d\"\nto = \"%s %s://127.0.0.1:%d\"\n",
					scheme, a.Name(), b.Name(), a.Name(), scheme, entryPort+j, b.Name(), scheme, to)
			}
		}
	}
	for _, a := range w.a {
		a.Host().EchoUDP(echoPort) // past Netport
	}
	w.Apply(policy.String())
	w.waitUp(t)
	t.Logf("all are there %v after the server", time.Since(w.began).Round(time.Second))
}

// waitUp waits until the first side's portals offer all.
func (w *world) waitUp(t *testing.T) {
	t.Helper()
	for _, a := range w.a {
		await.Until(t, "with all forwards at "+a.Name(), func() error {
			up := 0
			for _, f := range a.Status().Forwards {
				if f.State == "up" {
					up++
				}
			}
			if want := 2 * len(w.b); up != want {
				return fmt.Errorf("%d of %d are up", up, want)
			}
			return nil
		})
	}
}

// forget has portals and NATs begin anew.
func (w *world) forget(t *testing.T) {
	t.Helper()
	all := append(w.a[:len(w.a):len(w.a)], w.b...)
	for _, s := range all {
		s.Stop()
		for i, r := range s.routers {
			if i < len(s.kind.nats) {
				r.ForgetMappings()
			}
		}
	}
	for _, s := range all {
		s.Start()
	}
	w.waitUp(t)
}

// carried is how many bytes the relay has carried between two portals.
func (w *world) carried(a, b *site) (bytes uint64) {
	var status struct {
		Sessions []struct {
			Opener string `json:"opener"`
			Peer   string `json:"peer"`
			Forth  uint64 `json:"bytes_forth"`
			Back   uint64 `json:"bytes_back"`
		} `json:"sessions"`
	}
	w.relay.Status(&status)
	for _, s := range status.Sessions {
		if s.Opener == a.Name() && s.Peer == b.Name() || s.Opener == b.Name() && s.Peer == a.Name() {
			bytes += s.Forth + s.Back
		}
	}
	return bytes
}

// path is what a portal's status says of the way to another.
func (s *site) path(peer *site) (string, error) {
	for _, tunnel := range s.Status().Tunnels {
		if tunnel.Peer == peer.Name() && tunnel.Up {
			return tunnel.Path, nil
		}
	}
	return "", errors.New("no tunnel is up")
}
