package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// setting is the network that an experiment is made in. Its zero value is the reference topology on veth links.
type setting struct {
	name string
	// Emulated uplinks of the NATs, if they are not zero.
	lineA, lineB link.Shape
	rules        []topo.Rule // at NAT a
	portals      []daemon.Option
	warm         time.Duration // before goodput is measured; 0: warmUp
	window       time.Duration // for which it is, at least
}

// world is the network that experiments are made in.
type world struct {
	t       testing.TB
	options options
	setting setting
	lab     *topo.Lab

	client, service *topo.Host // behind NAT a and NAT b
	server, relay   *topo.Host // public
	natA, natB      *topo.Router

	services *services
	network  *daemon.Network // a server so far
	self     string          // this program

	// The contenders' programs are started when they are first asked for, and stay until the end.
	sshds     func() (ssh, error)
	ssh       func() (way, error)
	sshOpen   func() (way, error)
	turn      func() (flows, error)
	legs      func() (flows, error)
	netport   func() (way, error)
	nft       func() (way, error)
	wireGuard func() (way, error)
	broker    func() *daemon.Broker
	// Relays of the broker, one in user space and one in the kernel.
	userRelay, kernelRelay func() (brokered, error)
	pumpCredentials        func() ([2]string, error)
	netportRelay           *daemon.Relay // of netport; nil before, like the portals
	entry, exit            *daemon.Portal
	// Relays alone on a cable: one for the kernel plane and for coturn, one for what the former is compared with.
	cable, mirror func() (*cable, error)
	cabledTURN    func() (turnRelay, error)
}

// newWorld builds the topology of a setting. Every machine can have as many connections as its addresses allow.
func newWorld(t testing.TB, o options, s setting) *world {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := topo.New(t, topo.NoCapture())
	o.window = max(o.window, s.window)
	w := &world{t: t, options: o, setting: s, self: self, lab: l, server: l.Public("server"), relay: l.Public("relay")}
	nat := topo.PortRestricted
	nat.UDPTimeout = 10 * time.Minute // flows rest while others are measured
	w.natA, w.natB = l.Router("nat-a", uplink(s.lineA, nat)...), l.Router("nat-b", uplink(s.lineB, nat)...)
	w.natA.SetRules(s.rules...)
	w.client, w.service = w.natA.Host("client"), w.natB.Host("service")
	for _, host := range []*topo.Host{w.server, w.relay, w.client, w.service} {
		host.Sysctl("ipv4/tcp_congestion_control", o.congestion)
		host.Sysctl("ipv4/ip_local_port_range", "33000 65535") // above the relay's session ports
		host.Sysctl("ipv4/tcp_tw_reuse", "1")                  // or connections run out of ports
	}
	w.services = startServices(w.service)
	w.network = daemon.New(t, w.server)
	w.sshds = sync.OnceValues(w.startSSHDs)
	w.sshOpen = sync.OnceValues(w.startSSHOpen)
	w.ssh = sync.OnceValues(w.startSSH)
	w.turn = sync.OnceValues(w.startTURNFlows)
	w.legs = sync.OnceValues(w.startLegs)
	w.netport = sync.OnceValues(w.startNetport)
	w.wireGuard = sync.OnceValues(w.startWireGuard)
	w.nft = sync.OnceValues(w.startNFT)
	w.broker = sync.OnceValue(func() *daemon.Broker { return daemon.NewBroker(t, l.Public("broker")) })
	w.userRelay = w.newBrokered("user-relay", daemon.Set("mode", "userspace"))
	w.kernelRelay = w.newBrokered("kernel-relay", daemon.InKernel("auto"))
	w.pumpCredentials = sync.OnceValues(w.issuePumps)
	w.cable = sync.OnceValues(func() (*cable, error) { return w.newCable("relayed") })
	w.mirror = sync.OnceValues(func() (*cable, error) { return w.newCable("mirror") })
	w.cabledTURN = sync.OnceValues(w.startCabledTURN)
	for _, port := range append(servicePorts[:len(servicePorts):len(servicePorts)], pumpPort) {
		w.openNAT(port)
	}
	return w
}

// openNAT forwards a port of NAT b to the service's machine.
func (w *world) openNAT(port uint16) {
	w.natB.Run("nft", "add", "rule", "ip", "nat", "prerouting", "iifname", "wan", "meta", "l4proto", "{ tcp, udp }",
		"th", "dport", fmt.Sprint(port), "dnat", "to", netip.AddrPortFrom(w.service.Addr(), port).String())
}

// uplink adds an emulated line to a router's options, if there is one.
func uplink(line link.Shape, options ...topo.RouterOption) []topo.RouterOption {
	if line == (link.Shape{}) {
		return options
	}
	return append(options, topo.Uplink(line))
}

// runAll runs the chosen experiments, each setting's in a lab of its own, prints the table and writes the JSON file. An
// experiment that fails is left out of them.
func runAll(b *testing.B, o options) error {
	r := newReport(o)
	var failed error
	for rest := chosen(o); len(rest) > 0; {
		at := rest[0].at.name
		here := func(e experiment) bool { return e.at.name == at }
		done := false
		b.Run(at, func(b *testing.B) {
			w := newWorld(talkative{b}, o, rest[0].at)
			for _, e := range rest {
				if !here(e) {
					continue
				}
				if err := w.run(e, r); err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s: %w", e.id, err))
				}
			}
			done = true
		})
		if !done {
			failed = errors.Join(failed, fmt.Errorf("%s: its lab could not be built or has broken", rest[0].id))
		}
		rest = slices.DeleteFunc(rest, here)
	}
	fmt.Print(r.table())
	return errors.Join(failed, r.save(o.out))
}

// chosen are the experiments that the command line names.
func chosen(o options) []experiment {
	return slices.DeleteFunc(slices.Clone(experiments), func(e experiment) bool {
		return len(o.run) > 0 && !slices.Contains(o.run, e.id)
	})
}

func (w *world) run(e experiment, r *report) (err error) {
	c, err := e.set(w)
	if err != nil {
		return err
	}
	if c.end != nil {
		defer func() { err = errors.Join(err, c.end()) }()
	}
	rounds := w.options.rounds
	if c.rounds != 0 {
		rounds = c.rounds
	}
	all, err := c.run(rounds, func(step string) { w.t.Log(e.id, step) })
	if err != nil {
		return err
	}
	r.add(e.id, c, all)
	return nil
}
