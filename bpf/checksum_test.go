//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestRandomPacketsHaveRightSums compares what the programs send with packets whose
// sums are computed over everything.
func TestRandomPacketsHaveRightSums(t *testing.T) {
	packets := 20_000
	if *full {
		packets = 1_000_000
	}
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	both(t, func(r *rig, h hook) {
		for n := 0; n < packets; {
			p := r.join([]Protocol{UDP, TCP}[random.IntN(2)], random.IntN(2) == 1)
			p.move(random)
			for range 200 {
				n++
				s := p.arriving(random.IntN(2), make([]byte, random.IntN(200)))
				for i := range s.payload {
					s.payload[i] = byte(random.Uint32())
				}
				s.ttl, s.ecn = uint8(2+random.IntN(254)), uint8(random.IntN(4))
				s.options = make([]byte, 4*random.IntN(11))
				s.unchecked = random.IntN(20) == 0 && s.from.Addr().Is4()
				p.compare(h, s)
			}
			r.clearFlows()
		}
	})
}

// move gives the legs addresses and ports at random.
func (p *peers) move(random *rand.Rand) {
	p.Helper()
	p.clearFlows()
	for i, remote := range p.remote {
		a := remote.Addr().As16()
		binary.BigEndian.PutUint32(a[12:], random.Uint32()&0x1fffffff|0x20000000) // 32.0.0.0 to 63.255.255.255
		if remote.Addr().Is6() {
			binary.BigEndian.PutUint64(a[4:], random.Uint64())
		}
		p.remote[i] = netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), uint16(1+random.IntN(65535)))
	}
	p.install(nil)
}

// compare runs a packet that must be sent.
func (p *peers) compare(h hook, s segment) {
	p.Helper()
	frame := s.frame()
	got := p.run(h, frame, 0)
	if want := p.leaving(s).frame(); got.outcome != sent || !bytes.Equal(got.frame, want) {
		p.Fatalf("%s: of\n%x became\n%x, want\n%x", got.outcome, frame, got.frame, want)
	}
}

// TestSumsOfZero has every value that two bytes of a payload can have, so that every
// sum is met before and after the change: among them 0, which UDP sends as 0xffff.
func TestSumsOfZero(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			at := ethernetHeader + headerOf(p.local[0].Addr().Is6()) + map[Protocol]int{UDP: 6, TCP: 16}[p.protocol]
			sums := map[uint16]bool{}
			for word := range 1 << 16 {
				s := p.arriving(word&1, binary.BigEndian.AppendUint16(nil, uint16(word)))
				p.compare(h, s)
				sums[binary.BigEndian.Uint16(p.leaving(s).frame()[at:])] = true
			}
			none, all := uint16(0), uint16(0xffff)
			if p.protocol == TCP {
				none, all = all, none
			}
			if !sums[all] || sums[none] {
				t.Errorf("%s: sum %#x met: %v, %#x: %v", name, all, sums[all], none, sums[none])
			}
		})
	})
}

// FuzzHooks gives the same frame to both programs: the outcome, the bytes, the drops,
// the events and the counters must be the same.
func FuzzHooks(f *testing.F) {
	r := newRig(f)
	var pairs []*peers
	for i, protocol := range []Protocol{UDP, TCP} {
		for j, v6 := range []bool{false, true} {
			p := r.join(protocol, v6)
			p.slot = uint32(2*i + j)
			p.install(nil)
			pairs = append(pairs, p)
			r.admit(p.remote[0].Addr(), packetFirst)
		}
	}
	for _, p := range pairs {
		v6 := p.local[0].Addr().Is6()
		s := p.arriving(0, pattern(40))
		f.Add(s.frame(), true)
		f.Add(append(s.frame(), 1, 2, 3), true)
		s.to, s.flags = netip.AddrPortFrom(s.to.Addr(), packetFirst+1), flagSYN
		f.Add(s.frame(), true)
		f.Add(p.report(v6, 3, 4, 100, headerOf(v6)+8).frame(), true)
		f.Add(p.report(v6, 2, 0, 100, headerOf(v6)+30).frame(), true)
		for n := 34; n < 100; n += 7 {
			f.Add(p.arriving(1, pattern(100)).frame()[:n], false)
		}
	}
	for _, list := range [][]oddity{oddEthernet, oddIPv4, oddIPv6, oddTransport} {
		for _, o := range list {
			for _, p := range pairs {
				if p.protocol == o.protocol && p.local[0].Addr().Is6() == o.v6 {
					f.Add(o.change(p, p.arriving(0, pattern(64)).frame()), false)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, fix bool) {
		if len(frame) < ethernetHeader+40 || len(frame) > 3000 {
			return // the kernel does not run tc with it
		}
		if fix {
			frame = fixed(bytes.Clone(frame))
		}
		r.visit(t, func(r *rig) {
			var seen [2]string
			for i, h := range hooks {
				for _, p := range pairs {
					p.visited(r).setSlot(relayDirection{Lifetime: 3600})
				}
				got := r.run(h, frame, 0)
				seen[i] = fmt.Sprintf("%s, drops %v, events %v, frame\n%x\n", got.outcome, r.dropsOf(), r.drain(), got.frame)
				for _, p := range pairs {
					for _, d := range p.visited(r).slotOf().From {
						seen[i] += fmt.Sprintf("%d packets %d bytes closed %d; ", d.Packets, d.Bytes, d.Closed)
					}
				}
			}
			if seen[0] != seen[1] {
				t.Errorf("%x\nxdp: %s\ntc: %s", frame, seen[0], seen[1])
			}
		})
	})
}
