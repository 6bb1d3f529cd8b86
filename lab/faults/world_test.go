package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

var full = flag.Bool("full", false, "run with the whole numbers of the threat list, which takes minutes more")

// Ports of the world: where the entry portal listens, and where the services of plc do.
const (
	entryPort  = 7000
	otherEntry = 7001
	echoPort   = 7007
	otherPort  = 7008
)

// world is the network of the package's picture with its daemons.
type world struct {
	*daemon.Network
	t               *testing.T
	lab             *topo.Lab
	home, office    *topo.Router
	relay           *daemon.Relay
	laptop, factory *daemon.Portal
	plc             *topo.Host
}

func newWorld(t *testing.T, relay ...daemon.Option) *world {
	t.Helper()
	w := newNetwork(t, relay...)
	w.startPortals()
	return w
}

// newNetwork makes a world whose portals do not run yet.
func newNetwork(t *testing.T, relay ...daemon.Option) *world {
	t.Helper()
	l := topo.New(t)
	w := &world{
		t: t, lab: l,
		home:   l.Router("home", topo.PortRestricted, topo.IPv4Only()),
		office: l.Router("office", topo.Symmetric, topo.IPv4Only()),
	}
	w.plc = w.office.Host("plc")
	w.Network = daemon.New(t, l.Public("server"), daemon.Measured())
	w.relay = w.Relay(l.Public("relay"), relay...)
	return w
}

func (w *world) startPortals() {
	w.t.Helper()
	w.laptop, w.factory = w.Portal(w.home.Host("laptop")), w.Portal(w.office.Host("factory"))
}

// forward is one permission of a policy, from laptop to factory.
type forward struct{ name, from, to string }

func (w *world) policy(forwards ...forward) string {
	var policy strings.Builder
	for _, f := range forwards {
		fmt.Fprintf(&policy, "[[forward]]\nname = %q\nfrom = %q\nto = %q\n", f.name, "laptop "+f.from, "factory "+f.to)
	}
	return policy.String()
}

// allow makes the forwards the policy and waits until they are up.
func (w *world) allow(forwards ...forward) {
	w.t.Helper()
	w.Apply(w.policy(forwards...))
	for _, f := range forwards {
		w.laptop.WaitUp(f.name)
	}
}

// service is an endpoint on plc.
func (w *world) service(scheme string, port uint16) string {
	return scheme + "://" + netip.AddrPortFrom(w.plc.Addr(), port).String()
}

// echoes are a forward of TCP and one of UDP to the echo service of plc.
func (w *world) echoes() []forward {
	return []forward{
		{"tcp", fmt.Sprintf("tcp://127.0.0.1:%d", entryPort), w.service("tcp", echoPort)},
		{"udp", fmt.Sprintf("udp://127.0.0.1:%d", entryPort), w.service("udp", echoPort)},
	}
}

// other is a forward to another service of plc.
func (w *world) other() forward {
	return forward{"other", fmt.Sprintf("tcp://127.0.0.1:%d", otherEntry), w.service("tcp", otherPort)}
}

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// dial connects to a listener of the entry portal. The connection does not stall for ever.
func (w *world) dial(network string, port uint16) net.Conn {
	w.t.Helper()
	conn := w.laptop.Host().Dial(network, local(port))
	await.Limit(w.t, conn)
	return conn
}

// pair is both ends of one forwarded connection: the client's and the service's.
type pair struct{ client, service net.Conn }

// connect opens a connection through the tunnel to the service that listens at ln.
func (w *world) connect(port uint16, ln net.Listener) pair {
	w.t.Helper()
	p := pair{client: w.dial("tcp", port)}
	p.service = await.Accept(w.t, ln)
	p.alive(w.t)
	return p
}

// alive sends a line from one end to the other and back.
func (p pair) alive(t testing.TB) {
	t.Helper()
	await.RoundTrip(t, p.client, p.service)
}

// reset wants both ends to be reset.
func (p pair) reset(t testing.TB) {
	t.Helper()
	await.Reset(t, "client", p.client)
	await.Reset(t, "service", p.service)
}

// wantRefused wants nobody to listen.
func wantRefused(t testing.TB, host *topo.Host, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", to)
	closing := errors.Is(err, syscall.ECONNRESET) // the listener, at this moment: nobody took the connection
	if !closing && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial %v: %v, want a refusal", to, err)
	}
	if err == nil {
		conn.Close()
	}
}

// waitServer waits until the portal has noticed that the server is there, or that it is not.
func waitServer(t testing.TB, p *daemon.Portal, connected bool) {
	t.Helper()
	await.Until(t, fmt.Sprintf("connected = %t at %s", connected, p.Name()), func() error {
		if got := p.Status().Server.Connected; got != connected {
			return fmt.Errorf("connected = %t", got)
		}
		return nil
	})
}

func (w *world) serverAddr() netip.AddrPort { return netip.AddrPortFrom(w.Server.Host().Addr(), 443) }

func (w *world) relayAddr(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(w.relay.Host().Addr(), port)
}
