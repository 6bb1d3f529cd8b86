package rawip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// pair of namespaces: the relay's with an open Sender, and a host's with a
// capture.
//
//	relay 10.99.1.1 --- 10.99.1.2 host
func newPair(t *testing.T) (*Sender, *drop.Counters, *capture, *space) {
	t.Helper()
	relay, host := newSpace(t), newSpace(t)
	relay.connect("host", 1, host)
	drops := new(drop.Counters)
	var s *Sender
	var err error
	relay.do(func() { s, err = Open(drops) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, drops, host.capture(), relay
}

// want returns the next TCP or ICMP packet of the Sender, past what IPv6 itself
// says.
func (c *capture) want(accept func(packet.IP) bool) []byte {
	c.t.Helper()
	for {
		b := c.next(10_000)
		if b == nil {
			c.t.Fatal("no packet has come")
		}
		if p, ok := packet.ParseIP(b); ok && accept(p) {
			return p.Bytes
		}
	}
}

func isTCP(p packet.IP) bool { return p.Protocol == unix.IPPROTO_TCP }

func ends(six bool) (relay, host netip.AddrPort) {
	if six {
		return netip.MustParseAddrPort("[fd99:1::1]:28672"), netip.MustParseAddrPort("[fd99:1::2]:40000")
	}
	return netip.MustParseAddrPort("10.99.1.1:28672"), netip.MustParseAddrPort("10.99.1.2:40000")
}

func versions(t *testing.T, f func(t *testing.T, six bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

func TestPacketsArriveAsTheyWere(t *testing.T) {
	versions(t, func(t *testing.T, six bool) {
		s, drops, c, _ := newPair(t)
		relay, host := ends(six)
		b := packet.AppendTCP(nil, packet.TCP{
			Source: relay, Dest: host, Seq: 1, Ack: 2, Flags: packet.SYN | packet.ACK, Window: 64240,
			Options: packet.Offer{MSS: 1400}.AppendTo(nil),
		})
		s.Send(append(b, 0, 0, 0)) // what lies behind it does not leave
		got := c.want(isTCP)
		if !six { // the system has filled in the identification, and so the checksum
			copy(b[4:6], got[4:6])
			copy(b[10:12], got[10:12])
		}
		if !bytes.Equal(got, b) {
			t.Errorf("got  %x\nsent %x", got, b)
		}
		if all := drops.All(); len(all) != 0 {
			t.Errorf("dropped %v", all)
		}
	})
}

func TestWhatCannotBeSentIsCounted(t *testing.T) {
	s, drops, _, relay := newPair(t)
	from, to := ends(false)
	s.Send([]byte("no packet"))
	s.Send(packet.AppendTCP(nil, packet.TCP{Source: from, Dest: netip.MustParseAddrPort("192.0.2.1:1"), Flags: packet.ACK}))
	s.Send(packet.AppendTCP(nil, packet.TCP{Source: from, Dest: to, Flags: packet.ACK, Payload: make([]byte, 2000)}))
	if n := drops.Count(drop.SendFailed); n != 3 {
		t.Errorf("%d packets were not sent, want 3: no packet, no route, too long", n)
	}
	relay.run("ip link set host down")
	s.Send(packet.AppendTCP(nil, packet.TCP{Source: from, Dest: to, Flags: packet.ACK}))
	s.Close()
	s.Send(packet.AppendTCP(nil, packet.TCP{Source: from, Dest: to, Flags: packet.ACK}))
	if n := drops.Count(drop.SendFailed); n != 5 {
		t.Errorf("%d packets were not sent, want 5", n)
	}
}

func TestJoinedPacketLeavesInSegments(t *testing.T) {
	versions(t, func(t *testing.T, six bool) {
		for _, c := range []struct{ mss, want4, want6 int }{{0, 1460, 1440}, {1000, 1000, 1000}} {
			s, drops, wire, inside := newPair(t)
			relay, host := ends(six)
			payload := bytes.Repeat([]byte("0123456789abcdef"), 3750) // 60,000 bytes
			b := packet.AppendTCP(nil, packet.TCP{Source: host, Dest: relay, Seq: 5, Flags: packet.ACK | packet.PSH, Payload: payload})
			before := bytes.Clone(b)
			inside.do(func() { s.Forward(b, bpf.Leg{Remote: host, Local: relay.Addr(), Port: relay.Port()}, uint16(c.mss)) })
			if !bytes.Equal(b, before) {
				t.Error("the packet was changed")
			}
			want, got := c.want4, []byte(nil)
			if six {
				want = c.want6
			}
			for len(got) < len(payload) {
				q, why := packet.ParseTCP(wire.want(isTCP))
				if why != drop.None || q.Source != relay || q.Dest != host || q.Seq != 5+uint32(len(got)) {
					t.Fatalf("%v %+v", why, q)
				}
				if len(q.Payload) != min(want, len(payload)-len(got)) {
					t.Fatalf("a segment of %d bytes, want %d", len(q.Payload), want)
				}
				got = append(got, q.Payload...)
			}
			if !bytes.Equal(got, payload) || len(drops.All()) != 0 {
				t.Errorf("%d bytes of %d, dropped %v", len(got), len(payload), drops.All())
			}
		}
	})
}

func TestBadPacketsAreNotForwarded(t *testing.T) {
	s, drops, _, inside := newPair(t)
	relay, host := ends(false)
	to := bpf.Leg{Remote: host, Local: relay.Addr(), Port: relay.Port()}
	b := packet.AppendTCP(nil, packet.TCP{Source: host, Dest: relay, Flags: packet.ACK, Payload: make([]byte, 3000)})
	s.Forward(b[:30], to, 0)
	b[3000] ^= 1
	inside.do(func() { s.Forward(b, to, 0) })
	last, _ := packet.Rewrite(bytes.Clone(b), host, relay)
	for last[8] > 1 {
		last, _ = packet.Rewrite(last, host, relay)
	}
	s.Forward(last, to, 0)
	want := map[string]uint64{"malformed": 1, "checksum": 1, "ttl": 1}
	if got := drops.All(); len(got) != 3 || got["malformed"] != 1 || got["checksum"] != 1 || got["ttl"] != 1 {
		t.Errorf("dropped %v, want %v", got, want)
	}
}

func TestTooBigReachesTheSourceNowAndThen(t *testing.T) {
	versions(t, func(t *testing.T, six bool) {
		s, drops, c, _ := newPair(t)
		relay, host := ends(six)
		b := packet.AppendTCP(nil, packet.TCP{Source: host, Dest: relay, Flags: packet.ACK, Payload: make([]byte, 1000)})
		began := time.Now()
		for range 100 {
			s.TooBig(b, 1300)
		}
		most := limiterBurst + int(time.Since(began)/limiterPause) + 1
		s.TooBig(b[:10], 1300)
		s.Send(packet.AppendTCP(nil, packet.TCP{Source: relay, Dest: host, Flags: packet.RST})) // the last packet
		n := 0
		for {
			q := c.want(func(p packet.IP) bool {
				return isTCP(p) || p.Source == relay.Addr() && len(p.Bytes) > 500
			})
			if p, _ := packet.ParseIP(q); isTCP(p) {
				break
			}
			n++
		}
		if n < limiterBurst || n > most || len(drops.All()) != 0 {
			t.Errorf("%d errors for 100 packets, want %d to %d; dropped %v", n, limiterBurst, most, drops.All())
		}
	})
}

func TestLimiterLetsABurstAndThenARateThrough(t *testing.T) {
	l := newLimiter()
	now, a := time.Unix(1000, 0), netip.MustParseAddr("192.0.2.1")
	count := func() (n int) {
		for range 100 {
			if l.allow(now, a) {
				n++
			}
		}
		return n
	}
	if n := count(); n != limiterBurst {
		t.Errorf("%d at once, want %d", n, limiterBurst)
	}
	now = now.Add(3 * limiterPause)
	if n := count(); n != 3 {
		t.Errorf("%d after three pauses, want 3", n)
	}
	now = now.Add(time.Hour)
	if n := count(); n != limiterBurst {
		t.Errorf("%d after an hour, want %d", n, limiterBurst)
	}
}

func TestMTUIsTheRoutes(t *testing.T) {
	s, _, _, relay := newPair(t)
	want := func(dest string, want int) {
		t.Helper()
		var got int
		relay.do(func() { got = s.MTU(netip.MustParseAddr(dest)) })
		if got != want {
			t.Errorf("%s: MTU %d, want %d", dest, got, want)
		}
	}
	want("10.99.1.2", 1500)
	want("fd99:1::2", 1500)
	want("192.0.2.1", 0)
	want("2001:db8::1", 0)
	relay.run(
		"ip route add 192.0.2.0/24 via 10.99.1.2 mtu 1400",
		"ip route add 2001:db8::/32 via fd99:1::2 mtu 1380",
	)
	want("192.0.2.1", 1400)
	want("2001:db8::1", 1380)
}

// The daemon drops its capabilities once it has started.
func TestSendsWithoutCapabilities(t *testing.T) {
	s, drops, c, relay := newPair(t)
	from, to := ends(false)
	var failed error
	relay.do(func() { // on a thread that ends
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if failed = unix.Capset(&header, &none[0]); failed != nil {
			return
		}
		if _, err := Open(drops); !errors.Is(err, unix.EPERM) {
			failed = fmt.Errorf("opened without capabilities: %v", err)
			return
		}
		if mtu := s.MTU(to.Addr()); mtu != 1500 {
			failed = fmt.Errorf("MTU %d, want 1500", mtu)
		}
		s.Send(packet.AppendTCP(nil, packet.TCP{Source: from, Dest: to, Flags: packet.RST}))
	})
	if failed != nil {
		t.Fatal(failed)
	}
	c.want(isTCP)
	if all := drops.All(); len(all) != 0 {
		t.Errorf("dropped %v", all)
	}
}
