package udp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

func TestStrangersGetSilence(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, b := m.both(0, m.at)
	stranger := g.socket()
	sent := uint64(0)
	for _, to := range []*portal{a, {relay: g.shared}} {
		for n := 0; n <= 1500; n += 7 {
			if _, err := stranger.WriteToUDPAddrPort(noise(n), to.relay); err != nil {
				t.Fatal(err)
			}
			sent++
			if n%700 == 0 { // do not outrun the socket's buffer
				g.await("they are counted", func() bool {
					return g.cfg.Drops.Count(drop.UnknownSource)+g.cfg.Drops.Count(drop.Malformed) >= sent
				})
			}
		}
	}
	good := func(id leg.ID, secret wire.Secret) []byte {
		p, _ := leg.NewBinder(id, secret, 5).Packet(time.Now())
		return append([]byte(nil), p...)
	}
	id := leg.ID{Session: m.ID, Leg: 1, Connection: 3}
	cut := good(id, m.secrets[1])
	for _, c := range []struct {
		what   string
		packet []byte
		why    drop.Reason
	}{
		{"unknown session", good(leg.ID{Session: wire.NewSessionID()}, m.secrets[0]), drop.UnknownSession},
		{"the other leg's secret", good(id, m.secrets[0]), drop.WrongMAC},
		{"a good request, cut", cut[:len(cut)-4], drop.Malformed},
		{"a good request, longer", append(good(id, m.secrets[1]), 0, 0, 0, 0), drop.Malformed},
		{"the cookie and nothing else", []byte("\x00\x01\x00\x00\x21\x12\xa4\x42............"), drop.Malformed},
	} {
		before := g.cfg.Drops.Count(c.why)
		stranger.WriteToUDPAddrPort(c.packet, m.at)
		g.await(c.what, func() bool { return g.cfg.Drops.Count(c.why) == before+1 })
	}
	g.wantNothing(stranger)
	g.wantNothing(a.UDPConn)
	g.wantNothing(b.UDPConn)
	if got := g.cfg.Drops.Count(drop.UnknownSource); got < 400 {
		t.Errorf("%d packets of unknown source counted", got)
	}
}

func TestSessionPortTakesItsSessionOnly(t *testing.T) {
	g := newRig(t)
	m, other := g.session(), g.session()
	c := g.socket()
	packet, _ := leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0).Packet(time.Now())
	c.WriteToUDPAddrPort(packet, other.at)
	g.awaitDrops(drop.UnknownSession, 1)
	g.wantNothing(c)
}

func TestReplayFromElsewhereMovesNothing(t *testing.T) {
	for _, shared := range []bool{false, true} {
		g := newRig(t)
		m := g.session()
		relay := m.at
		if shared {
			relay = g.shared
		}
		b := m.portal(1, 0, relay)

		// The attacker hears leg 0's whole bind.
		victim, attacker := g.socket(), g.socket()
		binder := leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0)
		var heard [][]byte
		buf := make([]byte, 2048)
		for {
			packet, _ := binder.Packet(time.Now())
			heard = append(heard, append([]byte(nil), packet...))
			victim.WriteToUDPAddrPort(packet, relay)
			victim.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := victim.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			if n > len(packet) {
				t.Errorf("an answer of %d bytes to a request of %d", n, len(packet))
			}
			binder.Handle(buf[:n])
			if _, bound := binder.Mapped(); bound {
				break
			}
		}
		for range 100 {
			for _, p := range heard {
				attacker.WriteToUDPAddrPort(p, relay)
			}
		}
		g.awaitDrops(drop.Replayed, 200)
		g.wantNothing(attacker)
		b.send([]byte("for leg 0"))
		(&portal{victim, g, binder, relay}).want([]byte("for leg 0"))
		g.wantNothing(attacker)
	}
}

func TestForgedPacketsAreNotDelivered(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, b := m.both(0, m.at)
	count := 100_000
	if testing.Short() {
		count = 10_000
	}
	attackers := make([]*net.UDPConn, 50)
	for i := range attackers {
		attackers[i] = g.socket()
	}
	dropped := func() uint64 {
		return g.cfg.Drops.Count(drop.UnknownSource) + g.cfg.Drops.Count(drop.Malformed) + g.cfg.Drops.Count(drop.WrongMAC)
	}
	bind, _ := leg.NewBinder(leg.ID{Session: m.ID}, wire.NewSecret(), 1<<40).Packet(time.Now())
	kinds := [][]byte{[]byte("data that looks right"), bind, noise(leg.RequestLen), []byte("\x01\x01\x00\x00\x21\x12\xa4\x42............")}
	for i := range count {
		if _, err := attackers[i%len(attackers)].WriteToUDPAddrPort(kinds[i%len(kinds)], m.at); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 {
			g.await("they are counted", func() bool { return dropped() == uint64(i+1) })
			a.send([]byte("real")) // a checked stream goes on meanwhile
			b.want([]byte("real"))
		}
	}
	for _, c := range append(attackers, a.UDPConn, b.UDPConn) {
		g.wantNothing(c)
	}
	g.awaitTraffic(m, lease.Traffic{uint64(4 * count / 1000), 0})
}

func TestLegsAreNotJoinedWithThemselves(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a := m.portal(0, 0, m.at)
	binder := leg.NewBinder(leg.ID{Session: m.ID, Leg: 1}, m.secrets[1], 0)
	first, _ := binder.Packet(time.Now())
	a.send(first)
	buf := make([]byte, 2048)
	n, _, err := a.ReadFromUDPAddrPort(buf)
	if err != nil || !binder.Handle(buf[:n]) {
		t.Fatalf("no challenge: %v", err)
	}
	second, _ := binder.Packet(time.Now())
	a.send(second)
	g.awaitDrops(drop.SourceTaken, 1)
	a.send([]byte("nobody gets this"))
	g.wantNothing(a.UDPConn)
}

func TestLoopbackIsRefusedWhereItIsNotAllowed(t *testing.T) {
	g := tunedRig(t, func(c *Config) {
		c.Listen = []netip.Addr{loopback}
		c.Sources.AllowLoopback = false
	})
	m := g.session()
	c := g.socket()
	packet, _ := leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0).Packet(time.Now())
	c.WriteToUDPAddrPort(packet, m.at)
	g.awaitDrops(drop.ForbiddenSource, 1)
	g.wantNothing(c)
}

func TestPacketsAfterTheEndAreNotCarried(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, b := m.both(0, g.shared)
	m.end()
	a.send([]byte("late"))
	g.awaitDrops(drop.UnknownSource, 1)
	g.wantNothing(b.UDPConn)
}
