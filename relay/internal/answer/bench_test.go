package answer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
)

// nowhere is an edge that takes no time.
type nowhere struct{ sent, installed int }

func (e *nowhere) Send([]byte)                     { e.sent++ }
func (e *nowhere) Install(Flow) error              { e.installed++; return nil }
func (e *nowhere) Forward([]byte, bpf.Leg, uint16) {}
func (e *nowhere) MTU(netip.Addr) int              { return 1500 }

// BenchmarkHandshake is all of the machine's work for one connection, from the
// first SYN to the end of the flow, while 10,000 others are installed.
func BenchmarkHandshake(b *testing.B) {
	e := new(nowhere)
	session := lease.Session{ID: wire.SessionID{1}, Packet: [2]uint16{blockA, blockB}}
	sources := [2]netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")}
	m := New(Config{
		Expect: func(_ time.Time, source netip.Addr, _ uint16) (lease.Expected, drop.Reason) {
			who := lease.Expected{Session: session}
			if source == sources[1] {
				who.Leg = 1
			}
			return who, drop.None
		},
		Edge:   e,
		Drops:  new(drop.Counters),
		Limits: Limits{Pending: 100, Flows: 20_000, Quarantined: 10_000},
	})
	local := netip.MustParseAddr("2001:db8:9::9")
	var at, to [2]netip.AddrPort
	for i, p := range session.Packet {
		at[i], to[i] = netip.AddrPortFrom(sources[i], 40000), netip.AddrPortFrom(local, p+leg.PacketPorts-1)
	}
	for n := range uint16(10_000) {
		m.Adopt(Flow{Session: wire.SessionID{2}, Pair: bpf.Pair{
			A: bpf.Leg{Remote: netip.AddrPortFrom(sources[0], n), Local: local, Port: 1},
			B: bpf.Leg{Remote: netip.AddrPortFrom(sources[1], n), Local: local, Port: 2},
		}})
	}
	options := usual.AppendTo(nil)
	build := func(i int, t packet.TCP) []byte {
		t.Source, t.Dest, t.Window = at[i], to[i], 64240
		return packet.AppendTCP(nil, t)
	}
	packets := [][]byte{
		build(0, packet.TCP{Seq: 100, Flags: packet.SYN, Options: options}),
		build(1, packet.TCP{Seq: 200, Flags: packet.SYN, Options: options}),
		build(0, packet.TCP{Seq: 101, Ack: 201, Flags: packet.ACK, Options: options[:0], Payload: make([]byte, 500)}),
		build(1, packet.TCP{Seq: 201, Ack: 101, Flags: packet.ACK}),
	}
	pair := bpf.Pair{Protocol: bpf.TCP}
	pair.A = bpf.Leg{Remote: at[0], Local: local, Port: to[0].Port()}
	pair.B = bpf.Leg{Remote: at[1], Local: local, Port: to[1].Port()}
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range packets {
			m.Handle(start, p)
		}
		m.Closed(start, pair)
	}
	if e.sent != 2*e.installed || e.installed != b.N {
		b.Errorf("%d SYN-ACKs and %d flows in %d handshakes", e.sent, e.installed, b.N)
	}
}
