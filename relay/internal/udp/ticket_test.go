package udp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

// ticketKey makes the tickets of these tests.
var ticketKey = wire.NewSecret()

// take opens the session of a ticket, as a daemon does.
func (g *rig) take(k lease.Ticket, source netip.Addr) drop.Reason {
	s, fresh, why := g.cfg.Leases.Take(g.cfg.Now(), k, source)
	if fresh {
		if err := g.Open(s); err != nil {
			g.t.Error(err)
		}
	}
	return why
}

// ticket returns a ticket as its portals know it.
func (g *rig) ticket(peer string) *meeting {
	id := ticket.Session(ticketKey, "ann", peer, time.Now().Add(time.Hour))
	m := &meeting{g: g, secrets: [2]wire.Secret{ticket.Secret(ticketKey, id, 0), ticket.Secret(ticketKey, id, 1)}, at: g.shared}
	m.ID = id
	return m
}

func TestTicketsMeetAtTheSharedPort(t *testing.T) {
	g := newRig(t)
	m := g.ticket("bo")
	a, b := m.both(0, g.shared)
	a.send([]byte("forth"))
	b.want([]byte("forth"))
	b.send([]byte("back"))
	a.want([]byte("back"))
	g.awaitTraffic(m, lease.Traffic{5, 4})

	m.end() // a portal that binds anew has it made again
	b.binder.Start()
	b.bind()
	a.binder.Start()
	a.bind()
	a.send([]byte("again"))
	b.want([]byte("again"))
}

// T1, T3, T4 for tickets: strangers get silence, and nothing is kept for them.
func TestForgedTicketsGetSilence(t *testing.T) {
	g := newRig(t)
	m, own := g.ticket("bo"), g.session()
	c := g.socket()
	send := func(what string, packet []byte, to netip.AddrPort, why drop.Reason) {
		t.Helper()
		before := g.cfg.Drops.Count(why)
		if _, err := c.WriteToUDPAddrPort(packet, to); err != nil {
			t.Fatal(err)
		}
		g.awaitDrops(why, before+1)
		g.wantNothing(c)
	}
	first := func(m *meeting, secret wire.Secret) []byte {
		packet, _ := leg.NewBinder(leg.ID{Session: m.ID}, secret, 0).Packet(time.Now())
		return packet
	}
	send("forged", first(m, wire.NewSecret()), g.shared, drop.WrongMAC)
	send("the other leg's secret", first(m, m.secrets[1]), g.shared, drop.WrongMAC)
	send("at a session's port", first(m, m.secrets[0]), own.at, drop.UnknownSession)

	binder := leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0)
	packet, _ := binder.Packet(time.Now())
	c.WriteToUDPAddrPort(packet, g.shared)
	buf := make([]byte, 1000)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || n > len(packet) || !binder.Handle(buf[:n]) {
		t.Fatalf("a true one is answered by %d bytes, %v", n, err)
	}
	if g.cfg.Leases.Len() != 1 {
		t.Error("a source that is not proven has had a session made")
	}
	packet, _ = binder.Packet(time.Now())
	c = g.socket() // the second request from elsewhere
	send("replayed from elsewhere", packet, g.shared, drop.WrongNonce)
	if g.cfg.Leases.Len() != 1 {
		t.Error("a replay has had a session made")
	}
}

// T6: after a flood of forged tickets a true one is served, and nothing is left.
func TestTicketIsServedAfterAFlood(t *testing.T) {
	g := tunedRig(t, func(c *Config) { c.Listen, c.Now = []netip.Addr{loopback}, time.Now })
	c := g.socket()
	const flood = 20_000
	for i := range flood {
		packet, _ := leg.NewBinder(leg.ID{Session: g.ticket(fmt.Sprint(i)).ID}, wire.Secret{}, 0).Packet(time.Now())
		if _, err := c.WriteToUDPAddrPort(packet, g.shared); err != nil {
			t.Fatal(err)
		}
	}
	m := g.ticket("bo")
	a, b := m.both(0, g.shared)
	a.send([]byte("x"))
	b.want([]byte("x"))
	if n := g.cfg.Leases.Len(); n != 1 || g.cfg.Drops.Count(drop.WrongMAC) == 0 {
		t.Errorf("%d sessions; drops %v", n, g.cfg.Drops.All())
	}
	g.wantNothing(c)
}

// P9: what a portal sends right behind its bind is carried, though at the shared
// port it comes before the leg has a socket of its own.
func TestDataRightBehindABindIsNotLost(t *testing.T) {
	g := newRig(t)
	for i := range 20 {
		m := g.ticket(fmt.Sprint(i))
		if i%2 == 1 {
			m = g.session()
		}
		b := m.portal(1, 0, m.at)
		a := &portal{g.socket(), g, leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0), m.at}
		packet, _ := a.binder.Packet(time.Now())
		a.send(packet)
		buf := make([]byte, 1000)
		a.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := a.Read(buf)
		if err != nil || !a.binder.Handle(buf[:n]) {
			t.Fatalf("challenge of %d bytes, %v", n, err)
		}
		packet, _ = a.binder.Packet(time.Now())
		a.send(packet)
		for n := range byte(MaxHeld) {
			a.send([]byte{n})
		}
		var came [MaxHeld]int // in any order: two readers may have had a part each
		b.SetReadDeadline(time.Now().Add(10 * time.Second))
		for range MaxHeld {
			if n, err := b.Read(buf); n != 1 || err != nil {
				t.Fatalf("read %d bytes, %v; of %d packets came %v", n, err, MaxHeld, came)
			}
			came[buf[0]]++
		}
	}
}
