package answer

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// FuzzHandle plays a script against a machine that lives on: each step is a packet
// of one of four sockets, in parts right, in parts as the fuzzer likes, or
// bytes without any form. Nothing makes the machine panic, what it sends is well
// formed, its tables keep their limits, and it forgets everything in time.
func FuzzHandle(f *testing.F) {
	syn, ack, rst := byte(packet.SYN), byte(packet.ACK), byte(packet.RST)
	f.Add([]byte{0, syn, 0, 0, 0, 1, syn, 0, 0, 0, 0, ack, 1, 1, 9, 1, ack, 1, 1, 9})
	f.Add([]byte{0, syn, 0, 0, 0, 2, syn, 0, 0, 40, 1, syn, 0, 0, 0, 0, ack, 1, 3, 9, 9, rst, 1, 1, 1, 2, rst, 1, 0, 0})
	f.Add([]byte{3, syn, 0, 0, 20, 2, syn, 0, 0, 0, 3, ack, 1, 3, 0, 2, syn, 5, 0, 0, 2, ack, 1, 3, 200, 7, 0x45, 0, 0, 20})
	f.Fuzz(func(t *testing.T, script []byte) {
		rig := newRig(t)
		e := &strict{t: t}
		rig.cfg.Edge = e
		now, peers := rig.now, []*peer{rig.peer("a"), rig.peer("b"), rig.peer("b"), rig.peer("a")}
		isn := func(p *peer, n byte) uint32 { return p.isn + uint32(n)<<20 }
		known := make([]uint32, len(peers)) // the numbers that they used last
		for ; len(script) >= 5; script = script[5:] {
			who, flags, seq, whose, more := script[0], packet.Flags(script[1]), script[2], script[3], script[4]
			if who >= 8 { // time, or bytes
				now = now.Add(time.Duration(more) * 20 * time.Millisecond)
				rig.Tick(now)
				rig.Handle(now, script)
				continue
			}
			p := peers[who%4]
			segment := packet.TCP{Source: p.at, Dest: p.to, Flags: flags, Window: 1000}
			if flags&packet.SYN != 0 {
				known[who%4] = isn(p, seq)
				segment.Seq = isn(p, seq)
				segment.Options = append(segment.Options, script[:min(len(script), int(more)%40)&^3]...)
			} else {
				segment.Seq = known[who%4] + uint32(seq)
				segment.Ack = known[whose%4] + uint32(whose>>2) + 1
				segment.Payload = make([]byte, int(more)*int(more))
			}
			rig.Handle(now, packet.AppendTCP(nil, segment))
			if who >= 4 && len(e.last) > 0 {
				rig.Closed(now, e.last[0])
				e.last = e.last[1:]
			}
		}
		if _, flows := rig.Counts(); flows > rig.cfg.Limits.Flows {
			t.Errorf("%d flows", flows)
		}
		for range (PendingTime + QuarantineTime) / (100 * time.Millisecond) {
			now = now.Add(100 * time.Millisecond)
			rig.Tick(now)
		}
		if pending, _ := rig.Counts(); pending != 0 || len(rig.deadlines) != 0 || len(rig.quarantined.legs) != 0 {
			t.Errorf("%d handshakes, %d deadlines, %d resting legs are left", pending, len(rig.deadlines), len(rig.quarantined.legs))
		}
	})
}

// strict checks what the machine asks for.
type strict struct {
	t    *testing.T
	last []bpf.Pair // those that were installed and not closed
}

func (e *strict) Send(b []byte) {
	p, why := packet.ParseTCP(b)
	if why != drop.None || p.Flags != packet.SYN|packet.ACK && p.Flags != packet.RST|packet.ACK || len(b) > 80 {
		e.t.Errorf("sent %x", b)
	}
}

func (e *strict) Install(f Flow) error {
	if f.Pair.A.Remote.Addr().Is4() != f.Pair.B.Remote.Addr().Is4() || f.Pair.A.Port >= blockB || f.Pair.B.Port < blockB {
		e.t.Errorf("installed %+v", f)
	}
	e.last = append(e.last, f.Pair)
	return nil
}

func (e *strict) Forward(b []byte, to bpf.Leg, _ uint16) {
	b, why := packet.Rewrite(append([]byte(nil), b...), netip.AddrPortFrom(to.Local, to.Port), to.Remote)
	if why != drop.None || packet.Flags(b[33])&packet.SYN != 0 {
		e.t.Errorf("forwarded a packet that is %v: %x", why, b)
	}
	if binary.BigEndian.Uint16(b[22:]) != to.Remote.Port() {
		e.t.Errorf("forwarded %x to %v", b, to)
	}
}

func (e *strict) MTU(netip.Addr) int { return 0 }
