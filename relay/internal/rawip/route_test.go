package rawip

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// A machine that two providers serve sends by the one whose address a packet has.
//
//	       +-- first (all other sources)
//	relay -+
//	       +-- second (from 10.99.2.1 and fd99:2::1)
func TestPacketsLeaveByTheLinkOfTheirSource(t *testing.T) {
	relay, first, second := newSpace(t), newSpace(t), newSpace(t)
	relay.connect("first", 1, first)
	relay.connect("second", 2, second)
	relay.run(
		"ip route add default via 10.99.1.2", "ip -6 route add default via fd99:1::2",
		"ip route add default via 10.99.2.2 mtu 1400 table 7", "ip -6 route add default via fd99:2::2 mtu 1400 table 7",
		"ip rule add from 10.99.2.1 lookup 7", "ip -6 rule add from fd99:2::1 lookup 7",
	)
	drops := new(drop.Counters)
	var s *Sender
	var err error
	relay.do(func() { s, err = Open(drops) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	wires := []*capture{first.capture(), second.capture()}
	for _, c := range []struct{ to, first, second string }{
		{"192.0.2.9:9", "10.99.1.1:28672", "10.99.2.1:28672"},
		{"[2001:db8::9]:9", "[fd99:1::1]:28672", "[fd99:2::1]:28672"},
	} {
		to := netip.MustParseAddrPort(c.to)
		for i, from := range []string{c.first, c.second} {
			source := netip.MustParseAddrPort(from)
			s.Send(packet.AppendTCP(nil, packet.TCP{Source: source, Dest: to, Flags: packet.RST}))
			got, why := packet.ParseTCP(wires[i].want(func(p packet.IP) bool { return isTCP(p) && p.Dest == to.Addr() }))
			if why != drop.None || got.Source != source {
				t.Errorf("%+v, %v; want the packet from %v", got, why, source)
			}
			want := []int{1500, 1400}[i]
			relay.do(func() {
				if mtu := mtuBetween(source.Addr(), to.Addr()); mtu != want {
					t.Errorf("the MTU from %v is %d, want %d", source.Addr(), mtu, want)
				}
			})
		}
	}
	if all := drops.All(); len(all) > 0 {
		t.Errorf("dropped %v", all)
	}
}

// A datagram cannot be cut: whose it is learns how long one may be.
func TestSourceOfATooLongDatagramIsTold(t *testing.T) {
	s, drops, wire, inside := newPair(t)
	inside.run("ip link set host mtu 1400")
	relay, host := ends(false)
	datagram := packet.AppendTCP(nil, packet.TCP{Source: host, Dest: relay, Payload: make([]byte, 1401-40)})
	datagram[9] = unix.IPPROTO_UDP
	header := binary.BigEndian.Uint16(datagram[10:]) // its checksum
	binary.BigEndian.PutUint16(datagram[10:], header-(unix.IPPROTO_UDP-unix.IPPROTO_TCP))
	binary.BigEndian.PutUint16(datagram[24:], uint16(len(datagram)-20)) // the length
	binary.BigEndian.PutUint16(datagram[26:], 0)                        // no checksum
	inside.do(func() { s.Forward(datagram, bpf.Leg{Remote: host, Local: relay.Addr(), Port: relay.Port()}, 0) })
	got := wire.want(func(p packet.IP) bool { return p.Protocol == unix.IPPROTO_ICMP })
	if mtu := binary.BigEndian.Uint16(got[26:]); got[20] != 3 || got[21] != 4 || mtu != 1400 {
		t.Errorf("ICMP %d/%d with the MTU %d, want 3/4 with 1400", got[20], got[21], mtu)
	}
	if all := drops.All(); len(all) > 0 {
		t.Errorf("dropped %v", all)
	}
}
