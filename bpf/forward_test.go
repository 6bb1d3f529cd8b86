//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"testing"
)

// cases runs f for both protocols and IP versions.
func cases(r *rig, f func(p *peers, name string)) {
	for _, protocol := range []Protocol{UDP, TCP} {
		for _, v6 := range []bool{false, true} {
			p := r.join(protocol, v6)
			f(p, fmt.Sprintf("%v to %v", protocol, p.local[0]))
			r.clearFlows()
		}
	}
}

func TestForwardsBothDirections(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			for _, length := range []int{0, 1, 2, 63, 64, 1459} {
				for from := range 2 {
					p.setSlot(relayDirection{Lifetime: 3600})
					s := p.arriving(from, pattern(length))
					r.wants(h, name, s.frame(), sent, p.leaving(s).frame(), nil)
					got := p.slotOf()
					if d := got.From[from]; d.Packets != 1 || d.Bytes != uint64(length) || d.Closed != 0 {
						t.Errorf("%s: %d bytes from leg %d counted as %+v", name, length, from, d)
					}
					if d := got.From[1-from]; d.Packets != 0 || d.Bytes != 0 {
						t.Errorf("%s: leg %d is said to have sent %+v", name, 1-from, d)
					}
				}
			}
		})
	})
}

// TestForwardsWhatLooksOdd has packets that must get through as they are.
func TestForwardsWhatLooksOdd(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			for what, change := range map[string]func(*segment){
				"TTL 2":                     func(s *segment) { s.ttl = 2 },
				"TTL 255":                   func(s *segment) { s.ttl = 255 },
				"not ECN":                   func(s *segment) { s.ecn = 0 },
				"congestion experienced":    func(s *segment) { s.ecn = 3 },
				"VXLAN":                     func(s *segment) { s.payload = append([]byte{8, 0, 0, 0, 0, 0, 7, 0}, pattern(60)...) },
				"ESP":                       func(s *segment) { s.payload = append([]byte{0, 0, 16, 1, 0, 0, 0, 1}, pattern(60)...) },
				"the STUN cookie elsewhere": func(s *segment) { s.payload = []byte("\x21\x12\xa4\x42\x00\x00\x00\x00\x21\x12\xa4\x42") },
				"half of a STUN cookie":     func(s *segment) { s.payload = []byte("\x00\x01\x00\x00\x21\x12\xa4") },
				"options":                   func(s *segment) { s.options = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8} },
				"40 bytes of options":       func(s *segment) { s.options = make([]byte, 40) },
				"a bare ACK":                func(s *segment) { s.flags, s.payload = flagACK, nil },
				"no flags":                  func(s *segment) { s.flags = 0 },
			} {
				s := p.arriving(0, pattern(80))
				change(&s)
				r.wants(h, name+", "+what, s.frame(), sent, p.leaving(s).frame(), nil)
			}
		})
		p := r.join(UDP, false)
		s := p.arriving(1, pattern(80))
		s.unchecked = true
		r.wants(h, "UDP without a checksum", s.frame(), sent, p.leaving(s).frame(), nil)
	})
}

// TestCutsPadding: a frame has at least 60 bytes on a wire, a packet has not.
func TestCutsPadding(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			for _, padding := range []int{1, 17, 1000} {
				s := p.arriving(0, pattern(1))
				frame := append(s.frame(), bytes.Repeat([]byte{0xee}, padding)...)
				r.wants(h, name, frame, sent, p.leaving(s).frame(), nil)
			}
		})
	})
}

// TestKeepsWhatIsBehindUDP: RFC 9868 has options there.
func TestKeepsWhatIsBehindUDP(t *testing.T) {
	both(t, func(r *rig, h hook) {
		for _, v6 := range []bool{false, true} {
			p := r.join(UDP, v6)
			s := p.arriving(0, pattern(20))
			behind := func(b []byte) []byte {
				b = append(b, "behind"...)
				if v6 {
					binary.BigEndian.PutUint16(b[atIPv6+4:], uint16(len(b)-atPorts6))
				} else {
					binary.BigEndian.PutUint16(b[atIPv4+2:], uint16(len(b)-ethernetHeader))
				}
				return fixed(b)
			}
			r.wants(h, s.to.String(), behind(s.frame()), sent, behind(p.leaving(s).frame()), nil)
			if d := p.slotOf().From[0]; d.Bytes != 20 {
				t.Errorf("%d bytes counted, want 20", d.Bytes)
			}
		}
	})
}

// TestLargeFrames: over a page, XDP sees only the beginning. The kernel runs tc with
// nothing larger than a page.
func TestLargeFrames(t *testing.T) {
	both(t, func(r *rig, h hook) {
		lengths, tail := []int{3400, 4096, 8900}, 8000
		if h.name == "tc" {
			lengths, tail = lengths[:1], 3000
		}
		cases(r, func(p *peers, name string) {
			for _, length := range lengths {
				s := p.arriving(0, pattern(length))
				frame := s.frame()
				r.wants(h, fmt.Sprintf("%s, %d bytes", name, length), frame, sent, p.leaving(s).frame(), nil)
				r.wants(h, fmt.Sprintf("%s, %d bytes cut short", name, length), frame[:len(frame)-1], dropped, nil,
					counts{relayDropReasonDROP_LENGTH: 1})
			}
			s := p.arriving(0, pattern(100))
			r.wants(h, name+", 100 bytes with a large tail", append(s.frame(), make([]byte, tail)...), sent, p.leaving(s).frame(), nil)
		})
	})
}

// TestSegmentsAreCounted: a GSO packet is as many as it will be on the wire.
func TestSegmentsAreCounted(t *testing.T) {
	r, h := newRig(t), hooks[1]
	cases(r, func(p *peers, name string) {
		s := p.arriving(0, pattern(3_001))
		frame := s.frame()
		got, err := r.try(h, frame, skbContext{Ifindex: uint32(r.devices[0].Attrs().Index), GSOSize: 100, GSOSegs: 31})
		if err != nil {
			t.Fatal(err)
		}
		if want := p.leaving(s).frame(); got.outcome != sent || !bytes.Equal(got.frame, want) {
			t.Errorf("%s: %s", name, got.outcome)
		}
		if d := p.slotOf().From[0]; d.Packets != 31 || d.Bytes != 3_001 {
			t.Errorf("%s: counted %d packets with %d bytes, want 31 with 3001", name, d.Packets, d.Bytes)
		}
	})
}

func TestNotesTheEndOfTCP(t *testing.T) {
	const fin, rst = 1, 2 // CLOSED_*
	both(t, func(r *rig, h hook) {
		p := r.join(TCP, false)
		for _, step := range []struct {
			from  int
			flags uint8
			want  [2]uint32
		}{
			{0, flagACK, [2]uint32{0, 0}},
			{0, flagFIN | flagACK, [2]uint32{fin, 0}},
			{0, flagACK, [2]uint32{fin, 0}},
			{1, flagRST, [2]uint32{fin, rst}},
			{1, flagACK, [2]uint32{fin, 0}}, // that RST was forged: its sender goes on
			{1, flagFIN | flagACK, [2]uint32{fin, fin}},
			{0, flagRST, [2]uint32{fin | rst, fin}},
		} {
			s := p.arriving(step.from, nil)
			s.flags = step.flags
			r.wants(h, "segment", s.frame(), sent, p.leaving(s).frame(), nil)
			d := p.slotOf().From
			if got := [2]uint32{d[0].Closed, d[1].Closed}; got != step.want {
				t.Errorf("after flags %#x from leg %d: closed %v, want %v", step.flags, step.from, got, step.want)
			}
		}
	})
}

// TestDeadPairs: a pair is in the table and carries nothing.
func TestDeadPairs(t *testing.T) {
	const hour = 3600e9
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			now := monotonic(t)
			frames := [2][]byte{p.arriving(0, pattern(9)).frame(), p.arriving(1, pattern(9)).frame()}
			for _, c := range []struct {
				name string
				from [2]relayDirection
				want counts
			}{
				{"removed", [2]relayDirection{{Generation: 8, Seen: now, Lifetime: 60}, {Generation: 8, Seen: now, Lifetime: 60}}, counts{relayDropReasonDROP_STALE: 1}},
				{"both silent", [2]relayDirection{{Seen: now - 61e9, Lifetime: 60}, {Seen: now - hour, Lifetime: 60}}, counts{relayDropReasonDROP_EXPIRED: 1}},
			} {
				for from, frame := range frames {
					slot := relaySlot{From: c.from}
					p.put(p.Slots, p.slot, slot)
					r.wants(h, name+", "+c.name, frame, dropped, nil, c.want)
					if got := p.slotOf(); got != slot {
						t.Errorf("%s, %s: leg %d changed the slot to %+v", name, c.name, from, got)
					}
				}
			}
			for _, from := range [][2]relayDirection{
				{{Seen: now - 50e9, Lifetime: 60}, {Seen: now - hour, Lifetime: 60}},
				{{Seen: now - hour, Lifetime: 60}, {Seen: now - 50e9, Lifetime: 60}},
				{{Seen: now + 1e9, Lifetime: 60}, {Seen: now - hour, Lifetime: 60}}, // the daemon's clock is finer
			} {
				p.put(p.Slots, p.slot, relaySlot{From: from})
				s := p.arriving(0, pattern(9))
				r.wants(h, name+", one silent", frames[0], sent, p.leaving(s).frame(), nil)
			}
			// One entry of a pair that has been replaced: its other direction lives.
			p.setSlot(relayDirection{Lifetime: 60, Generation: 3})
			p.install(func(from int, flow *relayFlow) { flow.Generation = uint32(3 - from) })
			s := p.arriving(0, nil)
			r.wants(h, name+", new direction", s.frame(), sent, p.leaving(s).frame(), nil)
			r.wants(h, name+", old direction", frames[1], dropped, nil, counts{relayDropReasonDROP_STALE: 1})
		})
	})
}

// TestRates: what is over the rate of a direction is dropped, and the other
// direction has its own.
func TestRates(t *testing.T) {
	const burst = 100e6 // BURST
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			now := monotonic(t)
			s := p.arriving(0, pattern(2048))
			back := p.arriving(1, pattern(2048))
			over := counts{relayDropReasonDROP_RATE_LIMIT: 1}
			for _, c := range []struct {
				name     string
				d        relayDirection
				drops    counts
				packet   uint64 // when the next packet is due then, at least
				kibibyte uint64
			}{
				{"no limit", relayDirection{PacketDue: now + 1e12, ByteDue: now + 1e12}, nil, now + 1e12, now + 1e12},
				{"first packet", relayDirection{PacketCost: 3e9}, nil, now + 3e9 - burst, 0},
				{"packets just within", relayDirection{PacketCost: 3e9, PacketDue: now + burst - 20e6}, nil, now + 3e9 + burst - 20e6, 0},
				{"packets over", relayDirection{PacketCost: 1000, PacketDue: now + 10e9}, over, now + 10e9, 0},
				{"first bytes", relayDirection{KibCost: 2e9}, nil, 0, now + 4e9 - burst},
				{"bytes just within", relayDirection{KibCost: 2e9, ByteDue: now + burst - 20e6}, nil, 0, now + 4e9 + burst - 20e6},
				{"bytes over", relayDirection{KibCost: 1, ByteDue: now + 10e9}, over, 0, now + 10e9},
				{"packets within, bytes over", relayDirection{PacketCost: 1, KibCost: 1, ByteDue: now + 10e9}, over, 0, now + 10e9},
			} {
				c.d.Lifetime = 3600
				c.d.Seen = now
				p.put(p.Slots, p.slot, relaySlot{From: [2]relayDirection{c.d, {Lifetime: 3600, Seen: now}}})
				if c.drops == nil {
					r.wants(h, name+", "+c.name, s.frame(), sent, p.leaving(s).frame(), nil)
				} else {
					r.wants(h, name+", "+c.name, s.frame(), dropped, nil, c.drops)
				}
				d := p.slotOf().From[0]
				if late := uint64(2e9); d.PacketDue < c.packet || d.PacketDue > c.packet+late || d.ByteDue < c.kibibyte || d.ByteDue > c.kibibyte+late {
					t.Errorf("%s, %s: due %d and %d, want %d and %d or a little later", name, c.name, d.PacketDue, d.ByteDue, c.packet, c.kibibyte)
				}
				r.wants(h, name+", back", back.frame(), sent, p.leaving(back).frame(), nil)
			}
		})
	})
}

// TestIPv6CannotPassForIPv4: the tables hold 198.51.100.7 as ::ffff:198.51.100.7, which
// a packet of IPv6 may say of itself, too.
func TestIPv6CannotPassForIPv4(t *testing.T) {
	both(t, func(r *rig, h hook) {
		for _, protocol := range []Protocol{UDP, TCP} {
			p := r.join(protocol, false)
			r.admit(p.remote[0].Addr(), p.local[0].Port())
			s := p.arriving(0, pattern(30))
			s.from = netip.AddrPortFrom(netip.AddrFrom16(s.from.Addr().As16()), s.from.Port())
			s.to = netip.AddrPortFrom(netip.AddrFrom16(s.to.Addr().As16()), s.to.Port())
			r.wants(h, protocol.String(), s.frame(), dropped, nil, counts{relayDropReasonDROP_FORBIDDEN_SOURCE: 1})
			r.clearFlows()
		}
	})
}

// TestBrokenFlowsAreDropped: a table may hold what the program was not made for.
func TestBrokenFlowsAreDropped(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			frame := p.arriving(0, pattern(5)).frame()
			p.install(func(_ int, flow *relayFlow) { flow.Slot = 1 << 30 })
			r.wants(h, name+", no slot", frame, dropped, nil, counts{relayDropReasonDROP_STALE: 1})
			p.install(func(_ int, flow *relayFlow) { flow.PeerOwn = 200 })
			r.wants(h, name+", no address to leave from", frame, dropped, nil, counts{relayDropReasonDROP_STALE: 1})
			p.install(func(_ int, flow *relayFlow) { flow.Own = 200 })
			got := r.run(h, frame, 0)
			want := map[Protocol]counts{UDP: {}, TCP: {relayDropReasonDROP_UNKNOWN_SOURCE: 1}}[p.protocol]
			if drops := r.dropsOf(); got.outcome == sent || !maps.Equal(drops, want) {
				t.Errorf("%s, for no address: %s, drops %v", name, got.outcome, drops)
			}
		})
	})
}
