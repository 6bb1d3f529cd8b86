package survive

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

var full = flag.Bool("full", false, "run with the whole numbers of the threat list, which takes hours more")

// whole is the threat list's number with -full, and else the small one.
func whole[N int | time.Duration](small, long N) N {
	if *full {
		return long
	}
	return small
}

// kind is what the tunnel's carriers run over.
type kind string

const (
	overTLS  kind = "TLS"  // UDP does not leave home
	overQUIC kind = "QUIC" // TCP does not leave home towards the relays
	overBoth kind = "both"
	// directly is QUIC and TCP from portal to portal, beside carriers of both kinds by relays; with the others only one of
	// them passes there.
	directly   kind = "direct"
	directQUIC kind = "direct QUIC"
	directTCP  kind = "direct TCP"
)

// direct says whether the portals look for direct paths.
func (k kind) direct() bool { return strings.HasPrefix(string(k), string(directly)) }

// Ports of the world.
const (
	outPort     = 7000 // where laptop listens, for TCP and for UDP
	backPort    = 7001 // where factory listens
	extraPort   = 7002 // where laptop listens for the forward that some stories take back
	servicePort = 7007 // of the services, which run on both portals' machines
)

// plan says what a world is like. Its zero value is the package's picture, with carriers of both kinds.
type plan struct {
	carriers kind
	home     []topo.RouterOption // of the home router; a symmetric NAT without them
	provider []topo.RouterOption // of a router before it; none if nil
	laptop   []topo.HostOption
	relays   []daemon.Option

	relayHosts       []topo.HostOption
	homeIP, officeIP versions
	// names lets the portals know the server by a name; names of the world then knows it, too.
	names bool
	lab   []topo.Option
}

// versions are the IP versions of a network.
type versions string

const (
	v4   versions = "IPv4" // and so is none, for stories that say nothing
	v6   versions = "IPv6"
	both versions = "IPv4 and IPv6"
)

// router makes a router have these versions, and for IPv4 a NAT.
func (v versions) router(nat topo.NAT) []topo.RouterOption {
	switch v {
	case v6:
		return []topo.RouterOption{topo.IPv6Only()}
	case both:
		return []topo.RouterOption{nat}
	default:
		return []topo.RouterOption{nat, topo.IPv4Only()}
	}
}

// world is the network of the package's picture with its daemons.
type world struct {
	*daemon.Network
	lab             *topo.Lab
	carriers        kind
	home, office    *topo.Router
	provider        *topo.Router // nil if there is none
	relays          [2]*daemon.Relay
	laptop, factory *daemon.Portal
	names           *names // nil if not planned
	dice            *rand.Rand

	atFactory, atLaptop net.Listener // the services
}

func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	l := topo.New(t, p.lab...)
	w := &world{lab: l, carriers: p.carriers, dice: l.Dice(t.Name())}
	if p.home == nil && p.carriers.direct() {
		p.home = v4.router(topo.PortRestricted)
	} else if p.home == nil {
		p.home = p.homeIP.router(topo.Symmetric)
	} else {
		p.home = append(p.home, topo.IPv4Only())
	}
	if p.provider != nil {
		w.provider = l.Router("provider", append(p.provider, topo.IPv4Only())...)
		w.home = w.provider.Router("home", p.home...)
	} else {
		w.home = l.Router("home", p.home...)
	}
	w.office = l.Router("office", p.officeIP.router(topo.PortRestricted)...)
	w.Network = daemon.New(t, l.Public("server"))
	for i := range w.relays {
		host := l.Public(fmt.Sprint("relay-", i+1), p.relayHosts...)
		host.Sysctl("ipv4/ip_unprivileged_port_start", "0") // the shared ports are 443
		options := append([]daemon.Option{daemon.Set("shared_tcp_port", 443), daemon.Set("shared_udp_port", 443)}, p.relays...)
		w.relays[i] = w.Relay(host, options...)
	}
	w.force()
	laptop, factory := w.home.Host("laptop", p.laptop...), w.office.Host("factory")
	var portal []daemon.Option
	if p.homeIP != "" || p.officeIP != "" {
		server := w.Server.Host()
		portal = append(portal, daemon.Set("servers", []string{netip.AddrPortFrom(server.Addr4(), 443).String(), netip.AddrPortFrom(server.Addr6(), 443).String()}))
	}
	if p.names {
		w.names = newNames(l.Public("names"), w.Server.Host().Addr())
		for _, host := range []*topo.Host{laptop, factory} {
			host.ShowFile("/etc/resolv.conf", fmt.Sprintf("nameserver %v\noptions timeout:1 attempts:1\n", w.names.host.Addr()))
		}
		portal = append(portal, daemon.Set("servers", []string{serverName + ":443"}))
	}
	portal = append(portal, daemon.Set("direct", p.carriers.direct()))
	w.laptop, w.factory = w.Portal(laptop, portal...), w.Portal(factory, portal...)
	w.atFactory, w.atLaptop = factory.Listen(servicePort), laptop.Listen(servicePort)
	factory.EchoUDP(servicePort)
	laptop.EchoUDP(servicePort)
	w.allow(t, w.forwards()...)
	return w
}

// overEach tells a story over carriers of each kind, in a world of its own, and side by side.
func overEach(t *testing.T, p plan, story func(t *testing.T, w *world)) {
	for _, carriers := range []kind{overTLS, overQUIC} {
		t.Run(string(carriers), func(t *testing.T) {
			p := p
			p.carriers = carriers
			story(t, newWorld(t, p))
		})
	}
}

// force makes the home router drop what would make carriers of the other kind, and what the rules say.
func (w *world) force(rules ...topo.Rule) { w.forceAt(w.home, rules...) }

func (w *world) forceAt(router *topo.Router, rules ...topo.Rule) {
	switch w.carriers {
	case overTLS:
		rules = append(rules, topo.BlockUDPTo(w.relayAddrs()...))
	case overQUIC:
		rules = append(rules, topo.BlockTCPTo(w.relayAddrs()...))
	case directQUIC:
		rules = append(rules, topo.BlockTCPTo(w.office.Addr4()))
	case directTCP:
		rules = append(rules, topo.BlockUDPTo(w.office.Addr4()))
	}
	router.SetRules(rules...)
}

func (w *world) relayAddrs() (addrs []netip.Addr) {
	for _, r := range w.relays {
		addrs = append(addrs, r.Host().Addr())
	}
	return addrs
}

// forward is one permission of a policy.
type forward struct {
	name             string
	entry, exit      *daemon.Portal
	scheme           string
	listen, targetAt uint16
}

// forwards are those that the traffic uses.
func (w *world) forwards() []forward {
	return []forward{
		{"out", w.laptop, w.factory, "tcp", outPort, servicePort},
		{"flow", w.laptop, w.factory, "udp", outPort, servicePort},
		{"back", w.factory, w.laptop, "tcp", backPort, servicePort},
	}
}

// extra is one that the traffic does not use.
func (w *world) extra() forward {
	return forward{"extra", w.laptop, w.factory, "tcp", extraPort, servicePort}
}

func policy(forwards ...forward) string {
	var text strings.Builder
	for _, f := range forwards {
		fmt.Fprintf(&text, "[[forward]]\nname = %q\nfrom = %q\nto = %q\n", f.name,
			fmt.Sprintf("%s %s://127.0.0.1:%d", f.entry.Name(), f.scheme, f.listen),
			fmt.Sprintf("%s %s://127.0.0.1:%d", f.exit.Name(), f.scheme, f.targetAt))
	}
	return text.String()
}

// allow makes the forwards the policy and waits until they are up.
func (w *world) allow(t *testing.T, forwards ...forward) {
	t.Helper()
	w.Apply(policy(forwards...))
	for _, f := range forwards {
		f.entry.WaitUp(f.name)
	}
}

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// waitServer waits until the portals have noticed that the server is there, or that it is not.
func (w *world) waitServer(t *testing.T, connected bool) {
	t.Helper()
	for _, p := range []*daemon.Portal{w.laptop, w.factory} {
		await.Until(t, fmt.Sprintf("connected = %t at %s", connected, p.Name()), func() error {
			if got := p.Status().Server.Connected; got != connected {
				return fmt.Errorf("connected = %t", got)
			}
			return nil
		})
	}
}

// inUse is the relay over which laptop's tunnel to factory goes.
func (w *world) inUse(t *testing.T) *daemon.Relay {
	t.Helper()
	status := w.laptop.Status()
	for _, tunnel := range status.Tunnels {
		for _, r := range w.relays {
			if tunnel.Peer == w.factory.Name() && tunnel.Up && tunnel.Relay == r.Name() {
				return r
			}
		}
	}
	t.Fatalf("there is no tunnel to factory: %+v", status.Tunnels)
	return nil
}

// randomly waits for a moment that nobody foresees.
func (w *world) randomly(t *testing.T) {
	t.Helper()
	await.Passing(t, time.Duration(w.dice.Int64N(int64(whole(500*time.Millisecond, 3*time.Second)))))
}
