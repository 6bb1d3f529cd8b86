package kernel

import (
	"flag"
	"net/netip"
	"testing"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

var full = flag.Bool("full", false, "run with the whole numbers of the threat list, which takes minutes more")

// full or, for a run that is part of all tests, a fraction.
func scaled(count, fraction int) int {
	if *full {
		return count
	}
	return count / fraction
}

// plan says what a world is like. Its zero value is the package's picture, with the relay's program at tc.
type plan struct {
	home, office site
	mode         string // "tc" if empty
	version      int    // of IP between the legs and the relay; 0: 4
	config       []daemon.Option
	relay        []topo.HostOption
}

// site is the network that one leg is in. Its zero value is a NAT that keeps strangers out.
type site struct {
	provider []topo.RouterOption // of a router before the site's own; none if nil
	router   []topo.RouterOption
	host     []topo.HostOption
}

func behind(options ...topo.RouterOption) site { return site{router: options} }

// carrierGrade is a site behind a provider's NAT.
func carrierGrade(provider, own topo.NAT) site {
	return site{provider: []topo.RouterOption{provider, topo.LAN("100.64.0.0/24")}, router: []topo.RouterOption{own}}
}

// side is a site as it is built.
type side struct {
	*topo.Host
	router *topo.Router // the host's
	outer  *topo.Router // the one on the internet; the same if there is no provider
}

func (s site) build(l *topo.Lab, name, host string) *side {
	options := s.router
	if options == nil {
		options = []topo.RouterOption{topo.PortRestricted}
	}
	made := new(side)
	if s.provider != nil {
		made.outer = l.Router(name+"-isp", s.provider...)
		made.router = made.outer.Router(name, options...)
	} else {
		made.router = l.Router(name, options...)
		made.outer = made.router
	}
	made.Host = made.router.Host(host, s.host...)
	return made
}

// source is the address that the side's packets come from on the internet.
func (s *side) source(version int) netip.Addr {
	switch {
	case version == 6:
		return s.Addr6()
	case s.Addr4().IsPrivate():
		return s.outer.Addr4()
	default:
		return s.Addr4()
	}
}

// world is the network of the package's picture, with a running relay.
type world struct {
	t       *testing.T
	lab     *topo.Lab
	sides   [2]*side // left and right
	broker  *daemon.Broker
	relay   *daemon.Relay
	version int
}

func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	l := topo.New(t)
	w := &world{t: t, lab: l, version: max(p.version, 4)}
	w.sides = [2]*side{p.home.build(l, "home", "left"), p.office.build(l, "office", "right")}
	w.broker = daemon.NewBroker(t, l.Public("broker"))
	w.relay = w.addRelay(l.Public("relay", p.relay...), p.mode, p.config...)
	return w
}

// addRelay starts a relay on a host, whose link is made fit for the mode.
func (w *world) addRelay(host *topo.Host, mode string, config ...daemon.Option) *daemon.Relay {
	w.t.Helper()
	return w.broker.Relay(host, append([]daemon.Option{inMode(host, mode)}, config...)...)
}

// inMode makes a host's link fit for a mode and returns the relay's option for it.
func inMode(host *topo.Host, mode string) daemon.Option {
	switch mode {
	case "":
		mode = "tc"
	case "xdp":
		host.CarryXDP()
	case "xdp-generic":
		host.PlainFrames()
	}
	return daemon.InKernel(mode)
}

// relayAt is the relay's address for the world's IP version, with a port.
func (w *world) relayAt(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(w.addr(w.relay.Host()), port)
}

// addr is a host's address of the world's IP version.
func (w *world) addr(host *topo.Host) netip.Addr {
	if w.version == 6 {
		return host.Addr6()
	}
	return host.Addr4()
}
