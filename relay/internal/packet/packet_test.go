package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/relay/internal/drop"
)

var (
	a4, b4 = netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("203.0.113.9:28675")
	a6, b6 = netip.MustParseAddrPort("[2001:db8:1::1]:40000"), netip.MustParseAddrPort("[2001:db8:9::9]:28675")
)

// oracle is the checksum of a transport part, by the letter of RFC 1071.
func oracle(b []byte) uint16 {
	head, protocol, addresses := 20, b[9], b[12:20]
	if b[0]>>4 == 6 {
		head, protocol, addresses = 40, b[6], b[8:40]
	}
	t := b[head:]
	all := append(bytes.Clone(addresses), 0, 0, byte(len(t)>>8), byte(len(t)), 0, protocol)
	all = append(all, t...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	var s uint32
	for i := 0; i < len(all); i += 2 {
		s += uint32(all[i])<<8 | uint32(all[i+1])
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// oracle4 is the checksum over an IPv4 header.
func oracle4(b []byte) uint16 {
	var s uint32
	for i := 0; i < 20; i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return uint16(s>>16 + s&0xffff)
}

func wantSums(t *testing.T, b []byte) {
	t.Helper()
	if b[0]>>4 == 4 && oracle4(b) != 0xffff {
		t.Fatalf("the IPv4 header's checksum is wrong: %x", b[:20])
	}
	if oracle(b) != 0xffff {
		t.Fatalf("the transport's checksum is wrong: %x", b)
	}
}

func syn(from, to netip.AddrPort) []byte {
	offer := Offer{MSS: 1460, SACK: true, Stamps: true, Time: 0x01020304, Scales: true, Shift: 7}
	return AppendTCP(nil, TCP{Source: from, Dest: to, Seq: 0xfffffffe, Flags: SYN, Window: 64240, Options: offer.AppendTo(nil)})
}

func TestBuiltPacketsAreThoseOfLinux(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   string
	}{
		{syn(a4, b4), "4500003c000040004006" + "3cb1" + "c0000201cb007109" + "9c407003fffffffe00000000a002faf0" + "3ebb" + "0000" +
			"020405b40402080a010203040000000001030307"},
		{syn(a6, b6), "6000000000280640" + "20010db8000100000000000000000001" + "20010db8000900000000000000000009" +
			"9c407003fffffffe00000000a002faf0" + "e140" + "0000" + "020405b40402080a010203040000000001030307"},
	} {
		if got := hex.EncodeToString(c.packet); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		wantSums(t, c.packet)
	}
}

func TestEveryTruncationIsMalformed(t *testing.T) {
	for _, b := range [][]byte{syn(a4, b4), syn(a6, b6)} {
		for n := range b {
			if _, why := ParseTCP(b[:n:n]); why != drop.Malformed {
				t.Errorf("%d of %d bytes: %v", n, len(b), why)
			}
		}
		padded, why := ParseTCP(append(bytes.Clone(b), 0xff, 0xff))
		whole, _ := ParseTCP(b)
		if d := cmp.Diff(whole, padded, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" || why != drop.None {
			t.Errorf("with padding: %v %s", why, d)
		}
	}
}

func TestHeadersAreReadStrictly(t *testing.T) {
	change := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		if b[0]>>4 == 4 && at != 10 {
			complete4(b)
		}
		return b
	}
	v4, v6 := syn(a4, b4), syn(a6, b6)
	for _, c := range []struct {
		name string
		b    []byte
		want drop.Reason
	}{
		{"version 5", change(v4, 0, 0x55), drop.Malformed},
		{"IPv6 with version 4", change(v6, 0, 0x40), drop.Malformed},
		{"IP options", change(v4, 0, 0x46), drop.Malformed},
		{"IHL 4", change(v4, 0, 0x44), drop.Malformed},
		{"length 0", change(v4, 3, 0), drop.Malformed},
		{"length of more than there is", change(v4, 3, 61), drop.Malformed},
		{"IPv6 length of more than there is", change(v6, 5, 41), drop.Malformed},
		{"IPv6 length 0", change(v6, 5, 0), drop.Malformed},
		{"more fragments", change(v4, 6, 0x20), drop.Malformed},
		{"a later fragment", change(v4, 7, 1), drop.Malformed},
		{"the reserved bit", change(v4, 6, 0x80), drop.Malformed},
		{"IPv4 checksum", change(v4, 10, 0), drop.Malformed},
		{"UDP", change(v4, 9, 17), drop.Malformed},
		{"IPv6 extension header", change(v6, 6, 0), drop.Malformed},
		{"IPv6 fragment", change(v6, 6, 44), drop.Malformed},
		{"data offset 4", change(v4, 32, 0x40), drop.Malformed},
		{"data offset past the end", change(v4, 32, 0xb0), drop.Malformed},
		{"a bit of the options", change(v4, 59, 6), drop.Checksum},
		{"a bit of the ports", change(v6, 41, 0), drop.Checksum},
		{"an address", change(v4, 12, 9), drop.Checksum},
	} {
		if _, why := ParseTCP(c.b); why != c.want {
			t.Errorf("%s: %v, want %v", c.name, why, c.want)
		}
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(a4.Addr().As16()), 1)
	if _, why := ParseTCP(syn(mapped, b6)); why != drop.Malformed {
		t.Errorf("IPv4-mapped source on the wire: %v", why)
	}
	for _, p := range [][2]netip.AddrPort{{netip.AddrPortFrom(a4.Addr(), 0), b4}, {a4, netip.AddrPortFrom(b4.Addr(), 0)}} {
		if _, why := ParseTCP(syn(p[0], p[1])); why != drop.Malformed {
			t.Errorf("port 0: %v", why)
		}
	}
}

// partially puts the checksum into the form that is left for hardware.
func partially(b []byte) []byte {
	p, _ := ParseIP(b)
	at, _ := field(p)
	binary.BigEndian.PutUint16(at, fold(pseudo(p)))
	return b
}

func TestChecksumLeftForHardwareIsTaken(t *testing.T) {
	for _, b := range [][]byte{syn(a4, b4), syn(a6, b6)} {
		if _, why := ParseTCP(partially(b)); why != drop.None {
			t.Errorf("%v", why)
		}
	}
}

func TestOptionsAreReadStrictly(t *testing.T) {
	for _, c := range []struct {
		options string
		want    Offer
		ok      bool
	}{
		{"", Offer{}, true},
		{"01010100ffff", Offer{}, true},
		{"020405b4", Offer{MSS: 1460}, true},
		{"03030f", Offer{Scales: true, Shift: 14}, true},
		{"0402", Offer{SACK: true}, true},
		{"080a0000000100000002", Offer{Stamps: true, Time: 1, EchoTime: 2}, true},
		{"1e04aabb020405b4", Offer{MSS: 1460}, true},
		{"2202020405b4", Offer{MSS: 1460}, true},
		{"02040200020405b4", Offer{MSS: 1460}, true},
		{"02", Offer{}, false},
		{"0200", Offer{}, false},
		{"0201", Offer{}, false},
		{"020405", Offer{}, false},
		{"0203ff", Offer{}, false},
		{"0205ffffff", Offer{}, false},
		{"0302", Offer{}, false},
		{"030400ff", Offer{}, false},
		{"0403ff", Offer{}, false},
		{"08090000000100000002", Offer{}, false},
		{"1eff", Offer{}, false},
		{"1e00", Offer{}, false},
	} {
		b, _ := hex.DecodeString(c.options)
		got, ok := ParseOffer(b)
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.options, got, ok, c.want, c.ok)
		}
	}
}

func TestOfferIsReadAsItWasWritten(t *testing.T) {
	for bits := range 16 {
		o := Offer{SACK: bits&1 != 0}
		if bits&2 != 0 {
			o.MSS = 1200
		}
		if bits&4 != 0 {
			o.Scales, o.Shift = true, 9
		}
		if bits&8 != 0 {
			o.Stamps, o.Time, o.EchoTime = true, 1, 2
		}
		b := o.AppendTo(nil)
		if got, ok := ParseOffer(b); got != o || !ok || len(b)%4 != 0 {
			t.Errorf("%+v becomes %x and %+v", o, b, got)
		}
	}
}

// random returns a packet of either version and protocol with a right checksum.
func random(r *rand.Rand) []byte {
	from, to := a4, b4
	if r.IntN(2) == 0 {
		from, to = a6, b6
	}
	payload := make([]byte, r.IntN(50))
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	if r.IntN(2) == 0 {
		return AppendTCP(nil, TCP{Source: from, Dest: to, Seq: r.Uint32(), Ack: r.Uint32(), Flags: ACK, Payload: payload})
	}
	return datagram(from, to, payload)
}

func datagram(from, to netip.AddrPort, payload []byte) []byte {
	b := appendIP(nil, from.Addr(), to.Addr(), protocolUDP, udpHeader+len(payload))
	head := len(b)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeader+len(payload)))
	b = append(append(b, 0, 0), payload...)
	complete(IP{Protocol: protocolUDP, Bytes: b, Header: head})
	return b
}

func TestRewrittenPacketsHaveRightSums(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		b := random(r)
		wantSums(t, b)
		p, _ := ParseIP(b)
		tcp := p.Protocol == protocolTCP
		source, dest := a4, b4
		if p.Header == header6 {
			source, dest = a6, b6
		}
		source = netip.AddrPortFrom(source.Addr().Next(), uint16(r.Uint32()))
		dest = netip.AddrPortFrom(dest.Addr().Prev(), uint16(r.Uint32()))
		damaged, partial := r.IntN(4) == 0, r.IntN(4) == 0
		switch {
		case partial:
			partially(b)
		case damaged:
			b[len(b)-1] ^= 1
		}
		want := bytes.Clone(p.Transport()[4:])
		got, why := Rewrite(append(b, 1, 2, 3), source, dest)
		if why != drop.None || len(got) != len(b) {
			t.Fatalf("%v, %d bytes of %d", why, len(got), len(b))
		}
		q, ok := ParseIP(got)
		if !ok || q.Source != source.Addr() || q.Dest != dest.Addr() ||
			binary.BigEndian.Uint16(q.Transport()) != source.Port() || binary.BigEndian.Uint16(q.Transport()[2:]) != dest.Port() {
			t.Fatalf("%x", got)
		}
		if at, _ := field(q); !tcp && binary.BigEndian.Uint16(at) == 0 {
			t.Fatalf("a UDP checksum became 0, which means none: %x", got)
		}
		if damaged && !partial {
			if oracle(got) == 0xffff {
				t.Fatalf("damage is hidden from the receiver: %x", got)
			}
			continue
		}
		wantSums(t, got)
		at, _ := field(q)
		at[0], at[1] = 0, 0
		copy(want[map[bool]int{true: 12, false: 2}[tcp]:], []byte{0, 0})
		if !bytes.Equal(q.Transport()[4:], want) {
			t.Fatalf("more than ports and checksum changed: %x, want %x", q.Transport()[4:], want)
		}
	}
}

func TestUDPChecksumNeverBecomesNone(t *testing.T) {
	for word := range 1 << 16 { // one of them makes the sum zero
		b := datagram(a4, b4, []byte{byte(word >> 8), byte(word)})
		got, _ := Rewrite(b, b4, a4)
		if got[26] == 0 && got[27] == 0 {
			t.Fatalf("word %x: %x", word, got)
		}
		wantSums(t, got)
	}
}

func TestRewriteRefuses(t *testing.T) {
	none := datagram(a4, b4, []byte("x"))
	none[26], none[27] = 0, 0
	got, why := Rewrite(none, b4, a4)
	if why != drop.None || got[26] != 0 || got[27] != 0 {
		t.Errorf("IPv4 without a UDP checksum: %v, %x; want none again", why, got)
	}
	none = datagram(a6, b6, []byte("x"))
	none[46], none[47] = 0, 0
	if _, why := Rewrite(none, b6, a6); why != drop.Checksum {
		t.Errorf("IPv6 without a UDP checksum: %v", why)
	}
	if _, why := Rewrite(syn(a4, b4), a6, b6); why != drop.Malformed {
		t.Errorf("from IPv4 to IPv6: %v", why)
	}
	for _, c := range []struct {
		ttl  byte
		want drop.Reason
	}{{0, drop.TTL}, {1, drop.TTL}, {2, drop.None}, {255, drop.None}} {
		b := syn(a4, b4)
		b[8] = c.ttl
		complete4(b)
		got, why := Rewrite(b, b4, a4)
		if why != c.want || why == drop.None && got[8] != c.ttl-1 {
			t.Errorf("TTL %d: %v", c.ttl, why)
		}
		b = syn(a6, b6)
		b[7] = c.ttl
		got, why = Rewrite(b, b6, a6)
		if why != c.want || why == drop.None && got[7] != c.ttl-1 {
			t.Errorf("hop limit %d: %v", c.ttl, why)
		}
	}
	icmp, _ := AppendTooBig(nil, syn(a4, b4), 1400)
	if _, why := Rewrite(icmp, b4, a4); why != drop.Malformed {
		t.Errorf("ICMP: %v", why)
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{syn(a4, b4), syn(a6, b6), datagram(a4, b4, []byte("hello")), datagram(a6, b6, nil)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, why := ParseTCP(b)
		if why == drop.None {
			if _, ok := ParseOffer(s.Options); ok && len(s.Payload) == 0 {
				again, why := ParseTCP(AppendTCP(nil, s))
				if why != drop.None || again.Seq != s.Seq || again.Flags != s.Flags || !bytes.Equal(again.Options, s.Options) {
					t.Errorf("%+v becomes %+v, %v", s, again, why)
				}
			}
		}
		if answer, ok := AppendTooBig(nil, b, 100); ok {
			if _, ok := ParseIP(answer); !ok || len(answer) > 1280 {
				t.Errorf("%x answered by %x", b, answer)
			}
		}
		if limit, fits := PayloadLimit(b, 100, 50); !fits {
			var cutter Segmenter
			if pieces, why := cutter.Cut(b, max(limit, 10)); why == drop.None {
				for q := range pieces {
					wantSums(t, q)
				}
			}
		}
		source, dest := b4, a4
		if p, ok := ParseIP(b); ok && p.Header == header6 {
			source, dest = b6, a6
		}
		if got, why := Rewrite(bytes.Clone(b), source, dest); why == drop.None {
			if _, ok := ParseIP(got); !ok {
				t.Errorf("%x becomes %x", b, got)
			}
		}
	})
}
