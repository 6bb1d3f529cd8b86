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
	home, office    *topo.Router
	laptop, factory *daemon.Portal
	guest, plc      *topo.Host
	relay           *daemon.Relay
}

// site says how the two private networks are built. The zero site has a home with the NAT that homes have, and an office
// with the strictest.
type site struct{ home, office []topo.RouterOption }

func newWorld(t *testing.T) *world {
	t.Helper()
	return site{}.build(t)
}

func (s site) build(t *testing.T) *world {
	t.Helper()
	l := topo.New(t)
	if s.home == nil {
		s.home = []topo.RouterOption{topo.PortRestricted, topo.IPv4Only()}
	}
	if s.office == nil {
		s.office = []topo.RouterOption{topo.Symmetric, topo.IPv4Only()}
	}
	w := &world{home: l.Router("home", s.home...), office: l.Router("office", s.office...)}
	server := l.Public("server")
	w.Network = daemon.New(t, server)
	w.relay = w.Relay(l.Public("relay"))
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
	return []client{
		{"on the portal's machine", w.laptop.Host(), netip.MustParseAddr("127.0.0.1")},
		{"beside the portal", w.guest, w.laptop.Host().Addr()},
	}
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
