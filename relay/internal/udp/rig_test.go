package udp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/source"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// rig is a Relay on loopback.
type rig struct {
	*Relay
	t      testing.TB
	shared netip.AddrPort
	stop   func()
}

func newRig(t testing.TB) *rig {
	return tunedRig(t, func(c *Config) { c.Listen = []netip.Addr{loopback} })
}

// tunedRig returns a rig whose configuration the test changes.
func tunedRig(t testing.TB, tune func(*Config)) *rig {
	start := time.Now()
	cfg := Config{
		Leases:  lease.NewTable(lease.Limits{First: 20000, Last: 32767, Sessions: 4000, PerPortal: 4000, SharedUDP: true}),
		Sources: &source.Rules{AllowLoopback: true, Own: func(netip.Addr) bool { return false }},
		Drops:   new(drop.Counters),
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now:     func() time.Time { return start },
	}
	cfg.Leases.SetTicketKeys([]wire.Secret{ticketKey})
	tune(&cfg)
	return startRig(t, cfg, 0)
}

// startRig runs a Relay with a shared port, of that number unless it is 0.
func startRig(t testing.TB, cfg Config, shared uint16) *rig {
	t.Helper()
	g := &rig{t: t}
	cfg.Take = g.take
	var err error
	if g.Relay, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if shared, err = g.Share(shared); err != nil {
		t.Fatal(err)
	}
	g.shared = netip.AddrPortFrom(loopback, shared)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

// meeting is a session as its portals know it.
type meeting struct {
	lease.Session
	g       *rig
	secrets [2]wire.Secret
	at      netip.AddrPort // its own port
}

func (g *rig) session() *meeting {
	g.t.Helper()
	m := &meeting{g: g, secrets: [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}}
	s, _, err := g.cfg.Leases.Create(g.cfg.Now(), wire.CreateSession{
		ID: wire.NewSessionID(), Lifetime: 60, Transports: wire.TransportUDP,
		Legs: [2]wire.Leg{{Portal: "a", Secret: m.secrets[0]}, {Portal: "b", Secret: m.secrets[1]}},
	})
	for err == nil {
		if err = g.Open(s); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		s, err = g.cfg.Leases.MovePort(s.ID)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	m.Session = s
	m.at = netip.AddrPortFrom(loopback, s.Port)
	return m
}

func (m *meeting) end() lease.Traffic {
	m.g.cfg.Leases.End(m.ID)
	return m.g.Close(m.ID)
}

// portal is one portal's socket and bind.
type portal struct {
	*net.UDPConn
	g      *rig
	binder *leg.Binder
	relay  netip.AddrPort
}

// socket opens a socket of somebody on this machine.
func (g *rig) socket() *net.UDPConn { return g.socketAt(loopback) }

func (g *rig) socketAt(a netip.Addr) *net.UDPConn {
	g.t.Helper()
	return g.keep(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))))
}

// keep closes a new socket when the test ends.
func (g *rig) keep(c *net.UDPConn, err error) *net.UDPConn {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	c.SetReadBuffer(4 << 20)
	g.t.Cleanup(func() { c.Close() })
	return c
}

func (m *meeting) portal(n uint8, connection uint16, relay netip.AddrPort) *portal {
	m.g.t.Helper()
	return m.portalAt(m.g.socketAt(relay.Addr()), n, connection, relay)
}

func (m *meeting) portalAt(c *net.UDPConn, n uint8, connection uint16, relay netip.AddrPort) *portal {
	m.g.t.Helper()
	id := leg.ID{Session: m.ID, Leg: n, Connection: connection}
	p := &portal{c, m.g, leg.NewBinder(id, m.secrets[n], 0), relay}
	p.bind()
	return p
}

// bind runs the bind that is under way.
func (p *portal) bind() {
	p.g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mapped, err := legtest.Bind(ctx, p.binder, p.UDPConn, p.relay)
	if err != nil {
		p.g.t.Fatal(err)
	}
	if want := p.addr(); mapped != want {
		p.g.t.Fatalf("mapped %v, want %v", mapped, want)
	}
}

func (p *portal) addr() netip.AddrPort { return p.LocalAddr().(*net.UDPAddr).AddrPort() }

// both binds both legs of a connection at one port.
func (m *meeting) both(connection uint16, relay netip.AddrPort) (a, b *portal) {
	m.g.t.Helper()
	return m.portal(0, connection, relay), m.portal(1, connection, relay)
}

func (p *portal) send(packet []byte) {
	p.g.t.Helper()
	if _, err := p.WriteToUDPAddrPort(packet, p.relay); err != nil {
		p.g.t.Fatal(err)
	}
}

func (p *portal) want(packet []byte) {
	p.g.t.Helper()
	buf := make([]byte, 1<<16)
	p.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := p.ReadFromUDPAddrPort(buf)
	if err != nil || from != p.relay || !bytes.Equal(buf[:n], packet) {
		p.g.t.Fatalf("read %d bytes from %v, %v; want %d from %v (equal: %v)", n, from, err, len(packet), p.relay, bytes.Equal(buf[:n], packet))
	}
}

// wantNothing checks that nothing has come to c. It is called when the relay
// has counted what it was sent, so there is nothing to wait for.
func (g *rig) wantNothing(c *net.UDPConn) {
	g.t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, from, err := c.ReadFromUDPAddrPort(make([]byte, 1<<16)); !errors.Is(err, os.ErrDeadlineExceeded) {
		g.t.Fatalf("read %d bytes from %v, %v; want silence", n, from, err)
	}
}

func (g *rig) await(what string, ok func() bool) {
	g.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			g.t.Fatalf("not after 10 s: %s; drops %v", what, g.cfg.Drops.All())
		}
	}
}

// held returns how many packets of a leg wait for the other one.
func (g *rig) held(m *meeting, connection uint16, n uint8) int {
	s := g.Relay.session(m.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.connections[connection].held[n])
}

// legs returns where the legs of a connection are bound.
func (g *rig) legs(m *meeting, connection uint16) [2]bpf.Leg {
	s := g.Relay.session(m.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections[connection].legs
}

// awaitTraffic waits for the count of a session: a packet is counted after it
// was sent.
func (g *rig) awaitTraffic(m *meeting, want lease.Traffic) {
	g.t.Helper()
	g.await(fmt.Sprintf("traffic is %v", want), func() bool { return g.Traffic(m.ID) == want })
}

func (g *rig) awaitDrops(why drop.Reason, count uint64) {
	g.t.Helper()
	g.await(why.String(), func() bool { return g.cfg.Drops.Count(why) >= count })
}
