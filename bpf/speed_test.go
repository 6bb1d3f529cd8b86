//go:build linux

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// BenchmarkPacket is the time of the program for one packet, without what the
// kernel does around it: the difference to `nothing` is what the relay costs. The
// kernel gives the program the same frame again and again, so the flow leads from
// an address of the relay back to where the packet says it comes from.
func BenchmarkPacket(b *testing.B) {
	r := newRig(b)
	const loopback = 1 // where frames without a context come from
	for _, protocol := range []Protocol{UDP, TCP} {
		for _, v6 := range []bool{false, true} {
			p := r.join(protocol, v6)
			number := uint8(1)
			if v6 {
				number = 2
			}
			p.remote[0] = netip.AddrPortFrom(r.own[number+2], 40001)
			p.install(func(from int, flow *relayFlow) {
				flow.Ifindex = loopback
				if from == 0 {
					flow.PeerOwn, flow.PeerLocal = number+2, toNetwork(p.remote[0].Port())
					flow.Peer, flow.PeerPort = rawAddr(p.local[0].Addr()), toNetwork(p.local[0].Port())
				}
			})
			s := p.arriving(0, make([]byte, 64))
			s.toMAC, s.fromMAC, s.ttl = mac{}, mac{}, 255
			for _, h := range hooks {
				version := "IPv4"
				if v6 {
					version = "IPv6"
				}
				b.Run(h.name+" "+protocol.String()+" "+version, func(b *testing.B) {
					before := p.slotOf().From[0].Packets
					n := bench(b, h.program(r.relayObjects), s.frame())
					if got := p.slotOf().From[0].Packets - before; got != n {
						b.Fatalf("%d of %d packets were sent on", got, n)
					}
				})
			}
		}
	}
	nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 3), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer nothing.Close()
	b.Run("nothing", func(b *testing.B) { bench(b, nothing, make([]byte, 64)) })
}

// bench runs a program b.N times, of which each time the packet's TTL is spent it
// starts anew, and returns how often it ran.
func bench(b *testing.B, program *ebpf.Program, frame []byte) (n uint64) {
	const once = 250
	var spent time.Duration
	for int(n) < b.N {
		_, took, err := program.Benchmark(frame, once, nil)
		if err != nil {
			b.Fatal(err)
		}
		spent += took * once
		n += once
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(n), "ns/packet")
	return n
}
