package answer

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/relay/internal/packet"
)

func netipAddrPort(p *peer, port uint16) netip.AddrPort { return netip.AddrPortFrom(p.to.Addr(), port) }

// synAcks runs the handshake of a and b up to the SYN-ACK that either gets, and
// returns both.
func synAcks(g *rig, a, b *peer) (toA, toB packet.TCP) {
	g.t.Helper()
	var got []packet.TCP
	g.cfg.Edge = &tap{rig: g, sent: &got}
	a.syn()
	b.syn()
	a.ack(b, 0)
	if len(got) != 2 {
		g.t.Fatalf("%d packets were sent, want 2 SYN-ACKs", len(got))
	}
	return got[0], got[1]
}

// tap notes what is sent.
type tap struct {
	*rig
	sent *[]packet.TCP
}

func (e *tap) Send(b []byte) { *e.sent = append(*e.sent, e.parse(append([]byte(nil), b...))) }

func TestOptionsAreWhatBothSidesOffer(t *testing.T) {
	for bits := range 1 << 8 {
		g := newRig(t)
		pick := func(p *peer, bits, shift int) packet.Offer {
			o := packet.Offer{SACK: bits&1 != 0}
			if bits&2 != 0 {
				o.Scales, o.Shift = true, uint8(shift)
			}
			if bits&4 != 0 {
				o.Stamps, o.Time = true, p.offer.Time
			}
			if bits&8 != 0 {
				o.MSS = uint16(1200 + shift)
			}
			return o
		}
		a, b := g.peer("a"), g.peer("b")
		a.offer, b.offer = pick(a, bits&15, 3), pick(b, bits>>4, 9)
		toA, toB := synAcks(g, a, b)
		check := func(got packet.TCP, self, other *peer) {
			t.Helper()
			want := packet.Offer{MSS: 536, SACK: self.offer.SACK && other.offer.SACK}
			if other.offer.MSS != 0 {
				want.MSS = other.offer.MSS
			}
			if self.offer.Scales && other.offer.Scales {
				want.Scales, want.Shift = true, other.offer.Shift
			}
			if self.offer.Stamps && other.offer.Stamps {
				want.Stamps, want.Time, want.EchoTime = true, other.offer.Time, self.offer.Time
			}
			o, ok := packet.ParseOffer(got.Options)
			if !ok || o != want {
				t.Errorf("options of a %+v, b %+v: %s gets %+v, want %+v", a.offer, b.offer, self.name, o, want)
			}
			if got.Seq != other.isn || got.Ack != self.isn+1 || got.Window != 64240 || got.Source != self.to || got.Dest != self.at {
				t.Errorf("%s gets %+v", self.name, got)
			}
		}
		check(toA, a, b)
		check(toB, b, a)
	}
}

func TestMSSIsCutToTheLink(t *testing.T) {
	for _, c := range []struct {
		name   string
		mtu    int
		mss    uint16
		want   uint16
		family string
	}{
		{"no limit known", 0, 1460, 1460, ""},
		{"a wide link", 9000, 1460, 1460, ""},
		{"a narrow link", 1400, 1460, 1360, ""},
		{"a narrow link, no MSS", 1400, 0, 536, ""},
		{"a link that claims nonsense", 60, 1460, 536, ""},
		{"jumbo frames", 9000, 8960, 8960, ""},
		{"a narrow link", 1400, 1440, 1340, "6"},
		{"no MSS", 9000, 0, 1220, "6"},
		{"a link that claims nonsense", 60, 1460, 1220, "6"},
	} {
		g := newRig(t)
		g.mtu = c.mtu
		a, b := g.peer("a"+c.family), g.peer("b"+c.family)
		b.offer.MSS = c.mss
		toA, _ := synAcks(g, a, b)
		if o, _ := packet.ParseOffer(toA.Options); o.MSS != c.want {
			t.Errorf("IPv%s, %s: MSS %d, want %d", c.family, c.name, o.MSS, c.want)
		}
	}
}

func TestForwardedPacketsFitTheirReceiver(t *testing.T) {
	for _, c := range []struct{ mtu, mss, want uint16 }{{1500, 1400, 1400}, {1400, 1460, 1360}, {1500, 1, 536}} {
		g := newRig(t)
		g.mtu = int(c.mtu)
		a, b := g.peer("a"), g.peer("b")
		a.offer.MSS, b.offer.MSS = c.mss, c.mss
		a.syn()
		b.syn()
		a.ack(b, 3000)
		if g.mss != c.want {
			t.Errorf("MTU %d, MSS %d: F's packets are cut to %d, want %d", c.mtu, c.mss, g.mss, c.want)
		}
		g.mss = 0
		b.ack(a, 3000)
		if g.mss != c.want {
			t.Errorf("MTU %d, MSS %d: S's packet is cut to %d, want %d", c.mtu, c.mss, g.mss, c.want)
		}
	}
}

func TestUnknownOptionsECNAndDataAreLeftOut(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	b.offer = packet.Offer{MSS: 1400}
	b.extra = []byte{
		30, 4, 0, 1, // MPTCP
		34, 6, 1, 2, 3, 4, // TCP Fast Open
		254, 4, 0xf9, 0x89, // an experiment
		1, 1, // nothing
	}
	b.flags = 1<<6 | packet.CWR // wants ECN
	b.offer.Shift = 0
	a.flags = b.flags
	toA, toB := synAcks(g, a, b)
	if toA.Flags != packet.SYN|packet.ACK || toB.Flags != packet.SYN|packet.ACK {
		t.Errorf("flags %x and %x", toA.Flags, toB.Flags)
	}
	if want := string([]byte{2, 4, 1400 >> 8, 1400 & 0xff}); string(toA.Options) != want {
		t.Errorf("options % x, want % x", toA.Options, want)
	}

	g = newRig(t)
	a, b = g.peer("a"), g.peer("b")
	for _, p := range []*peer{b, a} { // Fast Open
		p.send(packet.TCP{Seq: p.isn, Flags: packet.SYN, Payload: make([]byte, 100)})
	}
	g.want("data on F's SYN is not acknowledged", "a < SYN b+0 ack a+1")
	a.ack(b, 100)
	g.want("it comes again, and S's is not acknowledged", "b < SYN a+0 ack b+1", "b << a+1 ack b+1 len 100")
	b.ack(a, 100)
	g.want("S's comes again", "install a b", "a << b+1 ack a+1 len 100")
}

func TestWindowScaleIsAtMost14(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	b.offer.Shift = 200
	toA, _ := synAcks(g, a, b)
	if o, _ := packet.ParseOffer(toA.Options); o.Shift != 14 {
		t.Errorf("shift %d, want 14 (RFC 7323 section 2.3)", o.Shift)
	}
}

func TestRepeatedSYNBringsItsNewTimestamp(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	a.offer.Time += 1000
	a.syn()
	toA, _ := synAcks(g, a, b) // a's SYN a third time
	if o, _ := packet.ParseOffer(toA.Options); o.EchoTime != a.offer.Time {
		t.Errorf("echoes %d, want that of the last SYN, %d", o.EchoTime, a.offer.Time)
	}
}
