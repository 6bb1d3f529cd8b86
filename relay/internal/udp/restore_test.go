package udp

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

// bound returns the legs of a session as the rules keep them for a restart.
func (g *rig) bound(m *meeting) (list []lease.Bound) {
	s := g.Relay.session(m.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, id := range s.legs {
		list = append(list, lease.Bound{ID: id, At: at})
	}
	return list
}

// restart stops the relay and runs another one with the same rules, ports and
// kernel plane.
func (g *rig) restart() *rig {
	g.t.Helper()
	g.stop()
	return startRig(g.t, g.cfg, g.shared.Port())
}

// follow makes a session's portal one of the relay after a restart.
func (p *portal) follow(g *rig) *portal { return &portal{p.UDPConn, g, p.binder, p.relay} }

func TestSessionsGoOnAfterARestart(t *testing.T) {
	for _, listen := range [][]netip.Addr{{loopback}, nil} {
		k := newScripted()
		g := tunedRig(t, func(c *Config) { c.Listen, c.Kernel = listen, k })
		m := g.session()
		var portals [][2]*portal
		for connection, at := range [][2]netip.AddrPort{{m.at, m.at}, {g.shared, g.shared}, {m.at, g.shared}} {
			a, b := m.portal(0, uint16(connection), at[0]), m.portal(1, uint16(connection), at[1])
			portals = append(portals, [2]*portal{a, b})
			a.send([]byte("before"))
			b.want([]byte("before"))
			k.carry(t, pairOf(a, b), 1000, 2000)
		}
		g.awaitTraffic(m, lease.Traffic{3018, 6000})
		bound, settled := g.bound(m), g.Settled(m.ID)
		if settled != (lease.Traffic{18, 0}) || len(bound) != 6 {
			t.Fatalf("settled %v, bound %v", settled, bound)
		}
		held := k.held()
		k.mu.Lock()
		k.calls = nil
		k.mu.Unlock()

		g = g.restart()
		k.wantCalls(t) // what the kernel forwards goes on
		if err := g.Restore(m.Session, bound); err != nil {
			t.Fatal(err)
		}
		if got := g.Traffic(m.ID); got != (lease.Traffic{3000, 6000}) {
			t.Errorf("traffic %v after the restart, want what the kernel counts", got)
		}
		for pair := range held {
			if _, ok := k.held()[pair]; !ok {
				t.Errorf("the kernel plane lost %v", pair)
			}
		}
		for _, p := range portals {
			a, b := p[0].follow(g), p[1].follow(g)
			a.send([]byte("after"))
			b.want([]byte("after"))
			b.send([]byte("and back"))
			a.want([]byte("and back"))
		}
		g.awaitTraffic(m, lease.Traffic{3015, 6024})
		m.g = g
		if got := m.end(); got != (lease.Traffic{3015, 6024}) || len(k.held()) != 0 {
			t.Errorf("traffic %v at the end, the kernel plane holds %v", got, k.held())
		}
	}
}

func TestLegThatWaitedStillWaitsAfterARestart(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a := m.portal(0, 3, g.shared)
	a.send([]byte("held and lost"))
	g.await("it is held", func() bool { return g.held(m, 3, 0) == 1 })
	bound := g.bound(m)
	g = g.restart()
	if err := g.Restore(m.Session, bound); err != nil {
		t.Fatal(err)
	}
	m.g = g
	a = a.follow(g)
	a.send([]byte("held"))
	g.await("it is held", func() bool { return g.held(m, 3, 0) == 1 })
	b := m.portal(1, 3, m.at)
	a.send([]byte("joined"))
	b.want([]byte("joined"))
	b.send([]byte("back"))
	a.want([]byte("back"))
	g.awaitTraffic(m, lease.Traffic{10, 4})

	// It moves as one that was bound here.
	moved := &portal{g.socket(), g, a.binder, m.at}
	moved.binder.Start()
	moved.bind()
	b.send([]byte("after the move"))
	moved.want([]byte("after the move"))
}

func TestLegIsRestoredOnlyWhereItMayStillBe(t *testing.T) {
	log := new(record)
	g := tunedRig(t, func(c *Config) {
		c.Listen = []netip.Addr{loopback}
		c.Log = slog.New(slog.NewTextHandler(log, nil))
	})
	m := g.session()
	a, b := m.both(0, m.at)
	good := g.bound(m)
	g = g.restart()

	refused := netip.MustParseAddrPort("224.0.0.1:5")
	bad := []lease.Bound{
		{ID: leg.ID{Session: wire.NewSessionID()}, At: legOf(a)},
		{ID: leg.ID{Session: m.ID, Leg: 2}, At: legOf(a)},
		{ID: leg.ID{Session: m.ID, Connection: 1}, At: legOf(&portal{a.UDPConn, g, nil, netip.AddrPortFrom(loopback, 1)})},
		{ID: leg.ID{Session: m.ID, Connection: 2}, At: legOf(&portal{a.UDPConn, g, nil, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), m.Port)})},
		{ID: leg.ID{Session: m.ID, Connection: 3}, At: legOf(a)},
	}
	bad[4].At.Remote = refused
	if err := g.Restore(m.Session, append(bad, good...)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "leg not restored"); got != len(bad) {
		t.Errorf("%d legs not restored, want %d:\n%s", got, len(bad), log)
	}
	a, b = a.follow(g), b.follow(g)
	a.send([]byte("the others are"))
	b.want([]byte("the others are"))
	if got := g.bound(m); len(got) != 2 {
		t.Errorf("bound: %v", got)
	}
}

func TestSessionIsNotRestoredWhenItsPortIsTaken(t *testing.T) {
	k := newScripted()
	g := tunedRig(t, func(c *Config) { c.Listen, c.Kernel = []netip.Addr{loopback}, k })
	m := g.session()
	m.both(0, m.at)
	bound := g.bound(m)
	g.stop()
	thief, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(m.at))
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	g = startRig(t, g.cfg, 0)
	if err := g.Restore(m.Session, bound); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("restored with its port taken: %v", err)
	}
	if g.Relay.session(m.ID) != nil {
		t.Error("the session is there all the same")
	}
	for pair := range k.held() { // the daemon ends it, and settles what the kernel holds
		g.Renew(pair)
	}
	if len(k.held()) != 0 {
		t.Errorf("the kernel plane holds %v", k.held())
	}
	if got := g.cfg.Drops.Count(drop.SendFailed); got != 0 {
		t.Errorf("%d sends failed", got)
	}
}
