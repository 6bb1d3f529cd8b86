package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/forge"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// attack is a stranger who forges packets, and a victim in whose name some are.
type attack struct {
	*forge.Forger
	w                *world
	attacker, victim *topo.Host
	heard            [2]func() topo.Arrivals // attacker's, victim's
}

func (w *world) attack() *attack {
	w.t.Helper()
	a := &attack{w: w, attacker: w.lab.Public("attacker"), victim: w.lab.Public("victim")}
	a.Forger = forge.New(w.t, a.attacker)
	a.heard = [2]func() topo.Arrivals{a.attacker.CountArrivals(), a.victim.CountArrivals()}
	return a
}

// sources returns a function that names the sources of forged packets in turn: the attacker's own address, the victim's,
// the relay's, those of the legs with other ports, and a thousand of hosts that do not exist.
func (a *attack) sources() func(i int) netip.AddrPort {
	w := a.w
	named := []netip.Addr{
		w.addr(a.attacker), w.addr(a.victim), w.addr(w.relay.Host()), w.sides[0].source(w.version), w.sides[1].source(w.version),
	}
	return func(i int) netip.AddrPort {
		addr := netip.AddrFrom4([4]byte{20, 9, byte(i / 250 % 4), byte(1 + i%250)})
		if w.version == 6 {
			addr = netip.AddrFrom16([16]byte{0x2a, 0x0f, 0, 0x21, 14: byte(i / 250 % 4), 15: byte(1 + i%250)})
		}
		if i%2 == 0 {
			addr = named[i/2%len(named)]
		}
		return netip.AddrPortFrom(addr, uint16(1024+i%60_000))
	}
}

// wantNothingHeard wants neither the attacker nor the victim to have got a single packet.
func (a *attack) wantNothingHeard() {
	a.w.t.Helper()
	for i, name := range []string{"the attacker", "the victim"} {
		if got := a.heard[i](); got.Packets > 0 {
			a.w.t.Errorf("%d packets of %d bytes reached %s", got.Packets, got.Bytes, name)
		}
	}
}

// G2, T1, T2 and T4: packets with forged sources, whatever they are, take over no leg, reach no leg, and are answered to
// nobody, while the session carries its own.
func TestForgedPacketsChangeNothing(t *testing.T) {
	t.Parallel()
	count := scaled(100_000, 20)
	closed := behind(topo.DropUnsolicited)
	for name, p := range map[string]plan{
		"tc": {}, "xdp": {mode: "xdp"}, "tc, IPv6": {version: 6, home: closed, office: closed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, p)
			a := w.attack()
			m := w.meet(anyTerms)
			legs, ends := m.bind(), m.connect(0)
			checkDatagrams(t, legs, datagrams(10))
			load := w.startLoad(legs, ends, 1)
			source := a.sources()
			dice := rand.New(rand.NewPCG(1, 2))
			for i := range count {
				from := source(i)
				payload := make([]byte, i%200)
				switch i / 2 % 4 {
				case 0: // data
				case 1: // with the STUN cookie
					payload = binary.BigEndian.AppendUint32(make([]byte, 4), 0x2112a442)
				case 2: // a bind with the wrong secret
					payload, _ = leg.NewBinder(leg.ID{Session: m.ID}, wire.NewSecret(), uint64(i+2)).Packet(time.Now())
				case 3: // a bind that would be right, cut off
					payload, _ = leg.NewBinder(leg.ID{Session: m.ID}, m.Secrets[0], uint64(i+2)).Packet(time.Now())
					payload = payload[:150]
				}
				a.UDP(from, w.relayAt(m.Ready.UDP), payload)
				flags := []uint8{
					forge.SYN, forge.ACK, forge.RST, forge.SYN | forge.ACK,
					forge.FIN | forge.ACK, forge.RST | forge.ACK, forge.PSH | forge.ACK, 0,
				}
				a.TCP(from, m.packetAt(i%2, i%leg.PacketPorts), forge.Segment{
					Flags: flags[i/7%len(flags)], Seq: dice.Uint32(), Ack: dice.Uint32(), Payload: payload[:i%8%(len(payload)+1)],
				})
			}
			load.end()
			a.wantNothingHeard()
			checkStream(t, m.connect(1), 100<<10) // new connections are made as before
			s := w.status()
			t.Logf("drops: %v, in the kernel %v", s.Drops, s.KernelDrops)
			if s.KernelDrops["unknown_source"] < uint64(count/4) {
				t.Errorf("the kernel dropped %v, want the segments of strangers among them", s.KernelDrops)
			}
		})
	}
}

// T4: SYNs in the name of a leg's address, from ports that it does not use, make the relay say no more to that address than
// was said to the relay.
func TestForgedSYNsAreNotAmplified(t *testing.T) {
	w := newWorld(t, plan{})
	a := w.attack()
	m := w.meet(anyTerms)
	heard := []func() topo.Arrivals{w.sides[0].outer.CountArrivals(), w.sides[1].outer.CountArrivals()}
	for i := range scaled(50_000, 50) {
		for side, s := range w.sides {
			from := netip.AddrPortFrom(s.source(4), uint16(1024+i%60_000))
			a.TCP(from, m.packetAt(side, i%leg.PacketPorts), forge.Segment{Flags: forge.SYN, Seq: uint32(i)})
		}
	}
	await.Passing(t, time.Second)
	got := heard[0]().Bytes + heard[1]().Bytes
	t.Logf("%d bytes were sent, the relay said %d", a.Sent(), got)
	if got > uint64(a.Sent()) {
		t.Errorf("the relay said %d bytes because of %d", got, a.Sent())
	}
	a.wantNothingHeard()
}

// T1: the same while portals connect. Whoever can forge the very address of a leg may spoil packet mode for it; the portals
// meet by another way, about as soon.
func TestForgedSYNsKeepNoPortalOut(t *testing.T) {
	const most = 2 * time.Second
	n := newNetwork(t, plan{})
	attacker := forge.New(t, n.lab.Public("attacker"))
	relay := n.relay.Host().Addr4()
	for range 3 {
		n.portals[1].Restart() // no tunnel is left
		n.portals[0].WaitUp("tcp")
		connected := make(chan error)
		start := time.Now()
		go func() { connected <- n.tryConnect() }()
		for i, waiting := 0, true; waiting; i++ {
			for _, s := range n.sides {
				at := netip.AddrPortFrom(relay, uint16(28672+i%32))
				attacker.TCP(netip.AddrPortFrom(s.source(4), uint16(1024+i%60_000)), at, forge.Segment{Flags: forge.SYN, Seq: uint32(i)})
			}
			select {
			case err := <-connected:
				waiting = false
				if took := time.Since(start); err != nil || took > most {
					t.Errorf("connected after %v, %v; want %v at most", took, err, most)
				} else {
					t.Logf("connected by %s after %v and %d forged SYNs", n.path(), took, 2*i)
				}
			default:
			}
		}
	}
}

// T13: a session whose leg would be an address that nobody may send to has no packet mode, whatever the server says.
func TestForbiddenSourcesGetNoPacketMode(t *testing.T) {
	w := newWorld(t, plan{})
	own := w.relay.Host()
	for _, addr := range []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.255.255.250", "169.254.169.254", "240.0.0.1",
		"::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "fe80::1", "ff02::1", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
		own.Addr4().String(), own.Addr6().String(), "::ffff:" + own.Addr4().String(),
	} {
		s, err := w.broker.TryOpen(w.relay, daemon.Terms{Sources: [2]netip.Addr{netip.MustParseAddr(addr), w.sides[1].source(4)}})
		if err == nil && s.Ready.Packet != [2]uint16{} {
			t.Errorf("a leg of %s gets the packet ports %v", addr, s.Ready.Packet)
		}
	}
	w.check()
}

// T5: two relays cannot be made each other's leg, and a relay cannot be made its own: nothing goes round.
func TestRelaysDoNotSendInCircles(t *testing.T) {
	w := newWorld(t, plan{})
	first := w.relay
	second := w.addRelay(w.lab.Public("relay-2"), "tc")
	place := func(r *daemon.Relay) wire.OtherRelays {
		return wire.OtherRelays{Relays: []wire.OtherRelay{{Addresses: r.Host().Addrs(), First: 20000, Last: 32767}}}
	}
	w.broker.Send(first, place(second))
	w.broker.Send(second, place(first))
	a := w.attack()
	arrived := []func() topo.Arrivals{first.Host().CountArrivals(), second.Host().CountArrivals()}
	var sent uint64
	for _, from := range []*daemon.Relay{first, second} {
		// A session whose first leg is said to be at the other relay, or at the relay itself.
		s, err := w.broker.TryOpen(first, daemon.Terms{Sources: [2]netip.Addr{from.Host().Addr4(), w.sides[1].source(4)}})
		if err != nil {
			continue // it is refused at all
		}
		if s.Ready.Packet != [2]uint16{} {
			t.Errorf("a leg at %s gets the packet ports %v", from.Name(), s.Ready.Packet)
		}
		for port := range uint16(8) {
			source, to := netip.AddrPortFrom(from.Host().Addr4(), 20000+port), netip.AddrPortFrom(first.Host().Addr4(), s.Ready.UDP)
			bind, _ := leg.NewBinder(leg.ID{Session: s.ID}, s.Secrets[0], uint64(port+1)).Packet(time.Now())
			a.UDP(source, to, bind)
			a.UDP(source, to, []byte("into the loop"))
			for _, at := range []uint16{28672 + port, s.Ready.TCP} {
				a.TCP(source, netip.AddrPortFrom(to.Addr(), at), forge.Segment{Flags: forge.SYN, Seq: 1})
			}
			sent += 4
		}
	}
	const honest = 50 // packets of the control connections
	await.Passing(t, time.Second)
	for i, arrived := range arrived {
		if got := arrived().Packets; got > sent+honest {
			t.Errorf("%d packets reached relay %d for %d that were sent: they went round", got, i+1, sent)
		}
	}
	w.check()
}

// A connection that ends leaves its port to the next, and what comes late of the old one is no part of the new.
func TestPortServesAgainWhenItsConnectionHasEnded(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"closed", "reset"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, plan{})
			m := w.meet(anyTerms)
			for round := range 3 {
				ends := m.connect(0)
				await.RoundTrip(t, ends[0], ends[1])
				if how == "reset" {
					if err := ends[0].(*net.TCPConn).SetLinger(0); err != nil {
						t.Fatal(err)
					}
				}
				if err := ends[0].Close(); err != nil {
					t.Fatal(err)
				}
				if how == "reset" {
					await.Reset(t, fmt.Sprint("the other side, round ", round), ends[1])
				} else if n, err := ends[1].Read(make([]byte, 1)); n != 0 || err == nil {
					t.Errorf("round %d: the other side reads %d bytes, %v; want the end", round, n, err)
				}
				ends[1].Close()
			}
		})
	}
}
