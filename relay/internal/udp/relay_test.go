package udp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func TestDatagramsOfEverySizeGoBothWays(t *testing.T) {
	g := newRig(t)
	m := g.session()
	for connection, at := range []struct{ a, b bool }{{false, false}, {true, true}, {false, true}} {
		pa, pb := m.at, m.at
		if at.a {
			pa = g.shared
		}
		if at.b {
			pb = g.shared
		}
		a, b := m.portal(0, uint16(connection), pa), m.portal(1, uint16(connection), pb)
		before := g.Traffic(m.ID)
		total := 0
		for _, n := range []int{0, 1, 20, 1200, 1472, 1473, 9000, 65507} {
			p := noise(n)
			a.send(p)
			b.want(p)
			b.send(p)
			a.want(p)
			total += n
		}
		want := before.Plus(lease.Traffic{uint64(total), uint64(total)})
		g.awaitTraffic(m, want)
	}
	before := g.Traffic(m.ID)
	if got := m.end(); got != before {
		t.Errorf("counted %v at the end, %v before", got, before)
	}
}

func TestLegsOfDifferentIPVersionsAreJoined(t *testing.T) {
	v6 := netip.IPv6Loopback()
	needAddress(t, v6)
	for _, addresses := range [][]netip.Addr{nil, {loopback, v6}} {
		g := tunedRig(t, func(c *Config) { c.Listen = addresses })
		m := g.session()
		for connection, port := range []uint16{m.at.Port(), g.shared.Port()} {
			a := m.portal(0, uint16(connection), netip.AddrPortFrom(loopback, port))
			b := m.portal(1, uint16(connection), netip.AddrPortFrom(v6, port))
			a.send([]byte("from IPv4"))
			b.want([]byte("from IPv4"))
			b.send([]byte("from IPv6"))
			a.want([]byte("from IPv6"))
		}
	}
}

// TestBurstsKeepSizesAndOrder sends what the relay hands to the kernel in
// pieces of many packets: sizes that repeat, that fall, and that rise.
func TestBurstsKeepSizesAndOrder(t *testing.T) {
	g := newRig(t)
	m := g.session()
	for connection, at := range []bool{false, true} {
		relay := m.at
		if at {
			relay = g.shared
		}
		a, b := m.both(uint16(connection), relay)
		sizes := rand.New(rand.NewPCG(1, uint64(connection)))
		for round := range 50 {
			var burst [][]byte
			size := 100
			for i := range 60 {
				if sizes.IntN(4) == 0 {
					size = 4 + sizes.IntN(1400)
				}
				burst = append(burst, fmt.Appendf(make([]byte, 0, size), "%02d%02d%s", round, i, make([]byte, size-4)))
			}
			for _, p := range burst {
				a.send(p)
			}
			for _, p := range burst {
				b.want(p)
			}
		}
	}
	if got := g.cfg.Drops.All(); len(got) != 0 {
		t.Errorf("drops: %v", got)
	}
}

// TestSegmentedSendIsCutAsItWas sends one large message that the sender's
// kernel cuts: over loopback it reaches the relay in one piece.
func TestSegmentedSendIsCutAsItWas(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, b := m.both(0, m.at)
	message := noise(40*1000 + 123)
	if _, _, err := a.WriteMsgUDPAddrPort(message, appendSegmentSize(nil, 1000), a.relay); err != nil {
		t.Skipf("this kernel has no UDP_SEGMENT: %v", err)
	}
	for len(message) > 0 {
		n := min(1000, len(message))
		b.want(message[:n])
		message = message[n:]
	}
	// A bind request among data of its own size is for the relay all the same.
	request, _ := leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 99).Packet(time.Now())
	data := noise(leg.RequestLen)
	message = append(append(append([]byte(nil), data...), request...), data...)
	if _, _, err := a.WriteMsgUDPAddrPort(message, appendSegmentSize(nil, leg.RequestLen), a.relay); err != nil {
		t.Fatal(err)
	}
	b.want(data)
	b.want(data)
	g.wantNothing(b.UDPConn)
}

func TestECNIsKept(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, b := m.both(0, m.at)
	askECN(t, b.UDPConn)
	for _, ecn := range []byte{0, 1, 2, 3} {
		if _, _, err := a.WriteMsgUDPAddrPort([]byte("x"), appendECN(nil, loopback, ecn), a.relay); err != nil {
			t.Fatal(err)
		}
		oob := make([]byte, 64)
		b.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, n, _, _, err := b.ReadMsgUDPAddrPort(make([]byte, 10), oob)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(messages) != 1 || messages[0].Data[0]&ecnMask != ecn {
			t.Errorf("ECN %d arrives as %v, %v", ecn, messages, err)
		}
	}
}

func TestBindMovesALegAndNothingIsLost(t *testing.T) {
	g := newRig(t)
	m := g.session()
	var before lease.Traffic
	for connection, relay := range []struct{ from, to bool }{{false, false}, {true, true}, {false, true}, {true, false}} {
		at := func(shared bool) *portal {
			if shared {
				return &portal{relay: g.shared}
			}
			return &portal{relay: m.at}
		}
		a, b := m.both(uint16(connection), at(relay.from).relay)
		a.send([]byte("before"))
		b.want([]byte("before"))
		before = before.Plus(lease.Traffic{6, 0})
		g.awaitTraffic(m, before)

		moved := &portal{g.socket(), g, a.binder, at(relay.to).relay}
		moved.binder.Start()
		moved.bind()
		b.send([]byte("to the new place"))
		moved.want([]byte("to the new place"))
		moved.send([]byte("from the new place"))
		b.want([]byte("from the new place"))
		unknown := g.cfg.Drops.Count(drop.UnknownSource)
		a.send([]byte("from the old place"))
		g.awaitDrops(drop.UnknownSource, unknown+1)
		g.wantNothing(b.UDPConn)
		g.wantNothing(a.UDPConn)
		before = before.Plus(lease.Traffic{18, 16})
		g.awaitTraffic(m, before)
	}
}

func TestPacketsAreHeldForTheOtherLeg(t *testing.T) {
	g := newRig(t)
	m := g.session()
	for connection, relay := range []*portal{{relay: m.at}, {relay: g.shared}} {
		dropped := g.cfg.Drops.Count(drop.NotJoined)
		a := m.portal(0, uint16(connection), relay.relay)
		for i := range MaxHeld + 3 {
			a.send([]byte{byte(i)})
		}
		g.awaitDrops(drop.NotJoined, dropped+3)
		// Only the bind's answer and what was held come to leg 1.
		p := &portal{g.socket(), g, nil, relay.relay}
		b := leg.NewBinder(leg.ID{Session: m.ID, Leg: 1, Connection: uint16(connection)}, m.secrets[1], 0)
		answered := 0
		var got []byte
		buf := make([]byte, 2048)
		for len(got) < MaxHeld || answered < 2 {
			if packet, _ := b.Packet(time.Now()); packet != nil {
				p.send(packet)
			}
			p.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := p.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			if b.Handle(buf[:n]) {
				answered++
			} else {
				got = append(got, buf[:n]...)
			}
		}
		for i := range got {
			if int(got[i]) != i || len(got) != MaxHeld {
				t.Fatalf("held packets arrive as %v", got)
			}
		}
	}
}

func TestSessionsLeaveNothingBehind(t *testing.T) {
	g := newRig(t)
	a, b := g.socket(), g.socket()
	once := func(relay func(*meeting) netip.AddrPort) {
		m := g.session()
		pa := &portal{a, g, leg.NewBinder(leg.ID{Session: m.ID}, m.secrets[0], 0), relay(m)}
		pb := &portal{b, g, leg.NewBinder(leg.ID{Session: m.ID, Leg: 1}, m.secrets[1], 0), relay(m)}
		pa.bind()
		pb.bind()
		pa.send([]byte("ping"))
		pb.want([]byte("ping"))
		pb.send([]byte("pong!"))
		pa.want([]byte("pong!"))
		if got, want := m.end(), (lease.Traffic{4, 5}); got != want {
			t.Fatalf("counted %v, want %v", got, want)
		}
	}
	own := func(m *meeting) netip.AddrPort { return m.at }
	shared := func(*meeting) netip.AddrPort { return g.shared }
	for range g.readers { // each has run now
		once(own)
	}
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	fds, routines := descriptors(), runtime.NumGoroutine()
	count := 1000
	if testing.Short() {
		count = 100
	}
	for range count {
		once(own)
		once(shared)
	}
	g.await("goroutines are back", func() bool { return runtime.NumGoroutine() <= routines })
	g.await("descriptors are back", func() bool { return descriptors() == fds })
	if n := len(g.plane.sockets) + len(g.plane.routes); n != 0 {
		t.Errorf("the plane holds %d entries", n)
	}
	for _, d := range g.readers {
		if n := len(d.sockets); n > len(g.Relay.shared) {
			t.Errorf("a reader holds %d sockets", n)
		}
	}
}
