// Package portmap has the router of this network send to this portal what arrives from the
// Internet at a port: it asks for mappings of the portal's own ports by PCP (RFC 6887),
// NAT-PMP (RFC 6886) or UPnP IGD, renews them for as long as they are wanted, and takes
// them back.
//
//	Mapper   which ports are wanted, in which network; what stands
//	router   the mappings at one router: when each is asked for, renewed, taken back
//	speaker  one protocol: pcp, natpmp, upnp
//
// Only the IPv4 default gateway is asked, and only what it answers counts. An external
// address that it names is a hint, like each candidate: whoever uses it must prove that
// this portal is there (package direct).
package portmap

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/wire"
)

const (
	// lease is for how long a mapping is asked for. It is renewed at half: so soon a router
	// that has lost it, by a restart that nothing else shows, is found out.
	lease = 20 * time.Minute
	// maxLease bounds what is believed of a router that gives more.
	maxLease = time.Hour
	// leaveTime bounds taking back what is mapped when this portal stops or the network is
	// another.
	leaveTime = 2 * time.Second
	// minPort is the lowest external port that is told to anybody: no portal would probe
	// another.
	minPort = 1024
)

// Port is a port of this portal, open on its IPv4 addresses.
type Port struct {
	Transport wire.CandidateTransport
	Number    uint16
}

// Mapping is a Port with where it is reached from outside of the router.
type Mapping struct {
	Port
	External netip.AddrPort
	Lease    time.Duration // that the router gave last, an hour at most
	Until    time.Time     // when it ends unless it is renewed
}

// State is what a Mapper knows now, for people.
type State struct {
	Gateway  netip.Addr // invalid: none is known
	Protocol string     // that the router speaks; "": none is known, or nothing is wanted
	Mappings []Mapping
	Why      string // why a wanted port is not mapped; "": all are, or none is wanted
}

// Config is what a Mapper is made from.
type Config struct {
	Network *network.Watch
	// Changed is called when Candidates has changed. It must not block.
	Changed func()
	Log     *slog.Logger
}

// Mapper keeps ports mapped. Its methods are safe for concurrent use.
type Mapper struct {
	Config
	place     func() place
	protocols []protocol    // in the order in which they are tried
	poke      chan struct{} // what is wanted has changed

	mu     sync.Mutex // guards the following
	wanted []Port
	state  State
}

// place is where this portal is, as far as mappings go.
type place struct {
	gateway netip.Addr // invalid: none
	local   netip.Addr // this machine's, towards the gateway
}

// Ports of a router's services.
const (
	pcpPort  = 5351 // and of NAT-PMP
	ssdpPort = 1900
)

// protocolsAt returns all protocols, spoken at these ports, in the order in which they are tried.
func protocolsAt(pcp, ssdp uint16) []protocol {
	return []protocol{
		{"PCP", func(ctx context.Context, at place) (speaker, error) { return findPCP(ctx, at, pcp) }},
		{"NAT-PMP", func(ctx context.Context, at place) (speaker, error) { return findNATPMP(ctx, at, pcp) }},
		{"UPnP IGD", func(ctx context.Context, at place) (speaker, error) { return findUPnP(ctx, at, ssdp) }},
	}
}

// New returns a Mapper that maps nothing yet. Run must be called for it.
func New(cfg Config) *Mapper {
	m := &Mapper{Config: cfg, protocols: protocolsAt(pcpPort, ssdpPort), poke: make(chan struct{}, 1)}
	m.place = func() place { return placeOf(cfg.Network.Current().Gateway) }
	return m
}

// placeOf returns where a portal with this gateway is.
func placeOf(gateway netip.Addr) (p place) {
	gateway = gateway.Unmap()
	if !gateway.Is4() {
		return p
	}
	conn, err := net.Dial("udp4", netip.AddrPortFrom(gateway, 9).String()) // sends nothing
	if err != nil {
		return p
	}
	defer conn.Close()
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if local == gateway {
		return p // the gateway is this machine
	}
	return place{gateway: gateway, local: local}
}

// Keep has these ports mapped from now on, and no others. It does not block.
func (m *Mapper) Keep(ports []Port) {
	m.mu.Lock()
	same := slices.Equal(m.wanted, ports)
	m.wanted = slices.Clone(ports)
	m.mu.Unlock()
	if !same {
		m.wake()
	}
}

func (m *Mapper) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// Candidates returns where this portal may be reached by what is mapped.
func (m *Mapper) Candidates() (list []wire.Candidate) {
	for _, p := range m.State().Mappings {
		if useless(p.External) == "" {
			list = append(list, wire.Candidate{Transport: p.Transport, Origin: wire.OriginMapped, Addr: p.External})
		}
	}
	return list
}

// useless says why no portal would go to an external address; "": it would.
func useless(external netip.AddrPort) string {
	switch kind := address.KindOf(external.Addr()); {
	case kind != address.Ordinary:
		return "the router says that its external address is " + external.Addr().String() + ", which is " + kind.String()
	case external.Port() < minPort:
		return "the router maps to a port below 1024"
	}
	return ""
}

// State returns what stands now.
func (m *Mapper) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state
	s.Mappings = slices.Clone(s.Mappings)
	return s
}

// Run maps what is wanted, in each network anew, until ctx is cancelled. Before it returns,
// what is mapped has been taken back, as far as the router answers.
func (m *Mapper) Run(ctx context.Context) error {
	changes, end := m.Network.Changes()
	defer end()
	for ctx.Err() == nil {
		at := m.place()
		here, leave := context.WithCancel(ctx)
		disturbed := make(chan struct{}, 1)
		var watching sync.WaitGroup
		watching.Go(func() {
			defer leave()
			m.watch(here, at, changes, disturbed)
		})
		m.serve(here, newRouter(at, m.protocols, m.Log), disturbed)
		leave()
		watching.Wait()
	}
	return nil
}

// watch returns when this portal is elsewhere. What may have made the router forget is told
// to disturbed.
func (m *Mapper) watch(ctx context.Context, at place, changes <-chan network.Change, disturbed chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changes:
			if m.place() != at {
				return
			}
			if c.Link || c.Network || c.Away > 0 {
				select {
				case disturbed <- struct{}{}:
				default:
				}
			}
		}
	}
}

// serve keeps what is wanted mapped at one router until ctx is cancelled.
func (m *Mapper) serve(ctx context.Context, r *router, disturbed <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		again := r.step(ctx, m.want())
		m.note(r.state())
		timer.Reset(time.Until(again))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-m.poke:
		case <-disturbed:
			r.disturb(time.Now())
		}
	}
	m.note(State{})
	r.follow(nil)
}

func (m *Mapper) want() []Port {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.wanted)
}

// note makes s the state.
func (m *Mapper) note(s State) {
	before := m.Candidates()
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
	if !slices.Equal(before, m.Candidates()) {
		m.Changed()
	}
}
