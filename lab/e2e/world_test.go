package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// world is the network of the package's picture with its daemons.
type world struct {
	*daemon.Network
	lab             *topo.Lab
	home, office    *topo.Router
	laptop, factory *daemon.Portal
	guest, plc      *topo.Host
	relay           *daemon.Relay

	// version is the IP version of clients and services, on both sides of the tunnel: 4 or 6. Each side has what it can.
	version int
}

// site is how a private network is built.
type site struct {
	provider []topo.RouterOption // of a router before the network's own; none if nil
	router   []topo.RouterOption
}

// The sites that most tests use.
var (
	commonHome   = site{router: []topo.RouterOption{topo.PortRestricted, topo.IPv4Only()}}
	commonOffice = site{router: []topo.RouterOption{topo.Symmetric, topo.IPv4Only()}}
)

func (s site) build(l *topo.Lab, name string) *topo.Router {
	if s.provider != nil {
		return l.Router(name+"-isp", s.provider...).Router(name, s.router...)
	}
	return l.Router(name, s.router...)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, commonHome, commonOffice)
}

// newWorldOf makes a world with other networks, and its relay with options.
func newWorldOf(t *testing.T, home, office site, relay ...daemon.Option) *world {
	t.Helper()
	l := topo.New(t)
	w := &world{lab: l, home: home.build(l, "home"), office: office.build(l, "office"), version: 4}
	server, relayHost := l.Public("server"), l.Public("relay")
	relayHost.Sysctl("ipv4/ip_unprivileged_port_start", "0") // a shared port may be 443
	w.Network = daemon.New(t, server)
	w.relay = w.Relay(relayHost, relay...)
	// Whichever IP version the two have in common with the server.
	servers := daemon.Set("servers", []string{hostPort(server.Addr4(), 443), hostPort(server.Addr6(), 443)})
	w.laptop = w.Portal(w.home.Host("laptop"), servers)
	w.factory = w.Portal(w.office.Host("factory"), servers)
	w.guest, w.plc = w.home.Host("guest"), w.office.Host("plc")
	return w
}

func hostPort(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }

// client is a machine from which a forward is used.
type client struct {
	name  string // of the subtest
	host  *topo.Host
	entry netip.Addr // where it finds the entry portal
}

// clients are the entry portal's own machine and the one beside it.
func (w *world) clients() []client {
	portal := w.addr(w.laptop.Host())
	loopback := netip.MustParseAddr("127.0.0.1")
	if portal.Is6() {
		loopback = netip.IPv6Loopback()
	}
	return []client{
		{"on the portal's machine", w.laptop.Host(), loopback},
		{"beside the portal", w.guest, portal},
	}
}

// addr is a host's address of the world's IP version, or of the one that it has.
func (w *world) addr(host *topo.Host) netip.Addr {
	if addr := host.Addr6(); addr.IsValid() && w.version == 6 {
		return addr
	}
	return host.Addr()
}

// endpoint writes an endpoint with an address.
func endpoint(scheme string, addr netip.Addr, port uint16) string {
	return scheme + "://" + hostPort(addr, port)
}

// forward is one permission of a policy, from laptop to factory.
type forward struct {
	name     string
	from, to string // endpoints
	more     string // further lines
}

// offer returns the forwards by which every client has the target at the entry portal's port.
func (w *world) offer(name, scheme string, port uint16, target string) []forward {
	var forwards []forward
	for i, c := range w.clients() {
		forwards = append(forwards, forward{name: fmt.Sprintf("%s-%d", name, i), from: endpoint(scheme, c.entry, port), to: target})
	}
	return forwards
}

// allow makes the forwards the policy and waits until they are up.
func (w *world) allow(t *testing.T, forwards ...forward) {
	t.Helper()
	var policy strings.Builder
	for _, f := range forwards {
		fmt.Fprintf(&policy, "[[forward]]\nname = %q\nfrom = %q\nto = %q\n%s\n", f.name, "laptop "+f.from, "factory "+f.to, f.more)
	}
	w.Apply(policy.String())
	for _, f := range forwards {
		w.laptop.WaitUp(f.name)
	}
}

// each runs the test from every client's machine.
func (w *world) each(t *testing.T, test func(t *testing.T, c client)) {
	for _, c := range w.clients() {
		t.Run(c.name, func(t *testing.T) { test(t, c) })
	}
}
