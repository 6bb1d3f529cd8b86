//go:build linux

package bpf

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
)

// event returns what the daemon is told of a frame that arrived on interface a.
func (r *rig) event(kind relayEventKind, reason relayEventReason, mtu uint16, frame []byte) told {
	return told{kind: kind, reason: reason, mtu: mtu, packet: string(frame[ethernetHeader:]), device: r.devices[0].Attrs().Index}
}

// TestTCPOfAdmittedSources goes to the daemon where it opens a connection or
// belongs to none, and never to the stack.
func TestTCPOfAdmittedSources(t *testing.T) {
	both(t, func(r *rig, h hook) {
		for _, v6 := range []bool{false, true} {
			p := r.join(TCP, v6)
			known, other := p.remote[0], p.remote[1].Addr()
			r.admit(known.Addr(), p.local[0].Port())
			block := p.local[0].Port() &^ 7
			for _, c := range []struct {
				name   string
				from   netip.AddrPort
				port   uint16
				flags  uint8
				length int
				want   relayEventReason // 0: a stranger
			}{
				{"SYN", netip.AddrPortFrom(known.Addr(), 1), block, flagSYN, 0, relayEventReasonREASON_SYN},
				{"SYN to the last port of the block", known, block + 7, flagSYN, 0, relayEventReasonREASON_SYN},
				{"SYN to the next block", known, block + 8, flagSYN, 0, 0},
				{"SYN to the block before", known, block - 1, flagSYN, 0, 0},
				{"SYN from another source", netip.AddrPortFrom(other, known.Port()), block, flagSYN, 0, 0},
				{"SYN of a flow", known, p.local[0].Port(), flagSYN, 0, relayEventReasonREASON_SYN},
				{"SYN-ACK of a flow", known, p.local[0].Port(), flagSYN | flagACK, 0, relayEventReasonREASON_SYN},
				{"ACK of no flow", known, block + 3, flagACK, 0, relayEventReasonREASON_NO_FLOW},
				{"RST of no flow", known, block + 3, flagRST, 0, relayEventReasonREASON_NO_FLOW},
				{"data of no flow", known, block + 3, flagACK, 1400, relayEventReasonREASON_NO_FLOW},
				{"data of no flow as long as a small record", known, block + 3, flagACK, 256 - 12 - 40, relayEventReasonREASON_NO_FLOW},
				{"data of no flow, longer than a link's record", known, block + 3, flagACK, 3000, relayEventReasonREASON_NO_FLOW},
				{"SYN with data", known, block, flagSYN, 700, relayEventReasonREASON_SYN},
			} {
				s := p.arriving(0, pattern(c.length))
				s.from, s.to, s.flags = c.from, netip.AddrPortFrom(s.to.Addr(), c.port), c.flags
				name := fmt.Sprintf("%s, %v", c.name, s.to)
				if c.want == 0 {
					r.wants(h, name, s.frame(), dropped, nil, counts{relayDropReasonDROP_UNKNOWN_SOURCE: 1})
					continue
				}
				r.wants(h, name, s.frame(), dropped, nil, nil, r.event(relayEventKindEVENT_HANDSHAKE, c.want, 0, s.frame()))
				padded := append(s.frame(), make([]byte, 6)...)
				r.wants(h, name+", padded", padded, dropped, nil, nil, r.event(relayEventKindEVENT_HANDSHAKE, c.want, 0, s.frame()))
			}
			// To be admitted to TCP is nothing to UDP.
			s := p.arriving(0, pattern(10))
			s.protocol = UDP
			r.wants(h, "UDP", s.frame(), passed, nil, nil)
		}
	})
}

// TestFullRing: what the daemon does not fetch is dropped and counted.
func TestFullRing(t *testing.T) {
	both(t, func(r *rig, h hook) {
		p := r.join(TCP, false)
		r.admit(p.remote[0].Addr(), p.local[0].Port())
		s := p.arriving(0, pattern(3000))
		s.flags = flagSYN
		const records = (4 << 20) / 65_600
		sum := counts{}
		for range 2 * records {
			if got := r.run(h, s.frame(), 0); got.outcome != dropped {
				t.Fatalf("%s", got.outcome)
			}
		}
		maps.Copy(sum, r.dropsOf())
		events := uint64(len(r.drain()))
		if full := sum[relayDropReasonDROP_RING_FULL]; len(sum) != 1 || events < records-1 || events+full != 2*records {
			t.Errorf("of %d packets %d were told, drops %v", 2*records, events, sum)
		}
		r.wants(h, "after the daemon has caught up", s.frame(), dropped, nil, nil,
			r.event(relayEventKindEVENT_HANDSHAKE, relayEventReasonREASON_SYN, 0, s.frame()))
	})
}
