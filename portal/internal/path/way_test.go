package path

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

func TestPacketModeNeedsAWayOfTheIPVersionThatTheServerSaw(t *testing.T) {
	for _, c := range []struct {
		addrs      string
		port       uint16
		transports wire.Transports
		server     string
		want       string // "": no packet mode
	}{
		{"192.0.2.2", 28672, Transports, "192.0.2.1", "192.0.2.2:28672"},
		{"2001:db8::2 192.0.2.2 192.0.2.3", 28672, Transports, "192.0.2.1", "192.0.2.2:28672"},
		{"192.0.2.2 2001:db8::2", 28672, Transports, "2001:db8::1", "[2001:db8::2]:28672"},
		{"::ffff:192.0.2.2", 28672, Transports, "::ffff:192.0.2.1", "192.0.2.2:28672"},
		{"192.0.2.2", 28672, Transports, "2001:db8::1", ""},
		{"192.0.2.2", 28672, wire.TransportSplice | wire.TransportTLS, "192.0.2.1", ""},
		{"192.0.2.2", 0, Transports, "192.0.2.1", ""},
	} {
		got := packetAddr(withPacket(access(c.addrs, 20000, 443), c.port), c.transports, netip.MustParseAddr(c.server))
		want, _ := netip.ParseAddrPort(c.want)
		if got != want {
			t.Errorf("relay at %s, server at %s, transports %d: %v, want %q", c.addrs, c.server, c.transports, got, c.want)
		}
	}
	if got := packetAddr(withPacket(access("192.0.2.2", 20000, 443), 28672), Transports, netip.Addr{}); got.IsValid() {
		t.Errorf("the server's address is not known: %v", got)
	}
}

// legTo returns a leg with both modes to a peer at a relay; no port of it is
// dialled.
func legTo(t *testing.T, f *Finder, relay, peer string) *Leg {
	t.Helper()
	s := wire.Session{
		ID: wire.NewSessionID(), Leg: 1, Peer: peer, Transports: Transports,
		Relay: withPacket(access("192.0.2.2", 20000, 443), 28672),
	}
	s.Relay.Name = relay
	l, err := f.Leg(s, netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func order(l *Leg) string {
	ways, apart := l.Ways(0)
	return fmt.Sprint(ways, " ", apart)
}

const (
	packetAhead = "[relay-packet relay] 250ms"
	bothAtOnce  = "[relay relay-packet] 0s"
)

// What happens to the ways of a carrier decides whether the next one begins
// with packet mode. Time is a bubble's.
func TestPacketModeIsAheadUnlessItHasFailed(t *testing.T) {
	type ways struct {
		leg    *Leg
		packet *packetWay
		splice *spliceWay
	}
	// up is what Dial of packet mode notes when it connects.
	up := func(w ways) {
		w.packet.up = time.Now()
		w.leg.stalled.Store(true)
	}
	// over is what splice mode notes that carries: it took 300 ms in all.
	over := func(w ways) {
		w.splice.began = time.Now().Add(-300 * time.Millisecond)
		w.splice.Taken()
	}
	doubt := over
	for _, test := range []struct {
		name string
		then []func(w ways) // for one carrier each
		want string
	}{
		{"nothing is known", nil, packetAhead},
		{"it worked", []func(ways){func(w ways) { up(w); w.packet.Taken() }}, packetAhead},
		{"it did not connect and splice mode carried", []func(ways){doubt}, bothAtOnce},
		{"it connected a moment ago, and splice mode was quicker", []func(ways){func(w ways) {
			up(w)
			time.Sleep(300 * time.Millisecond)
			over(w)
		}}, packetAhead},
		{"it connected long ago, and splice mode carried", []func(ways){func(w ways) {
			up(w)
			time.Sleep(301 * time.Millisecond)
			over(w)
		}}, bothAtOnce},
		{"it carried and broke at once", []func(ways){func(w ways) { up(w); w.packet.Taken(); w.packet.Lost() }}, bothAtOnce},
		{"splice mode carried and broke at once", []func(ways){func(w ways) { up(w); over(w); w.splice.Lost() }}, packetAhead},
		{"it connected and no carrier came up", []func(ways){func(w ways) { up(w); w.leg.Failed() }}, bothAtOnce},
		{"nothing connected", []func(ways){func(w ways) { w.leg.Failed() }}, packetAhead},
		{"it works again", []func(ways){doubt, func(w ways) { up(w); w.packet.Taken() }}, packetAhead},
		{"it connects again, and loses", []func(ways){doubt, func(w ways) { up(w); over(w) }}, packetAhead},
		{"it broke, connects again and loses", []func(ways){func(w ways) { up(w); w.packet.Taken(); w.packet.Lost() }, func(w ways) { up(w); over(w) }}, bothAtOnce},
		{"it broke, and carries again", []func(ways){func(w ways) { up(w); w.packet.Taken(); w.packet.Lost() }, func(w ways) { up(w); w.packet.Taken() }}, packetAhead},
		{"it was not ahead, and loses", []func(ways){doubt, func(w ways) { time.Sleep(doubtTime - time.Second); over(w) }}, bothAtOnce},
		{"losing while it is not ahead does not prolong the doubt", []func(ways){doubt, func(w ways) {
			time.Sleep(doubtTime - time.Second)
			over(w)
			time.Sleep(time.Second)
		}}, packetAhead},
	} {
		own := newAuthority(t).Credentials(identity.Portal, "ann")
		synctest.Test(t, func(t *testing.T) {
			f := NewFinder(own, slog.New(slog.DiscardHandler))
			for _, then := range test.then {
				l := legTo(t, f, "relay-1", "factory")
				list, _ := l.Ways(0)
				i := slices.IndexFunc(list, func(w Way) bool { return w.String() == "relay-packet" })
				then(ways{l, list[i].(*packetWay), list[1-i].(*spliceWay)})
			}
			if got := order(legTo(t, f, "relay-1", "factory")); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
			for _, other := range []*Leg{legTo(t, f, "relay-1", "plant"), legTo(t, f, "relay-2", "factory")} {
				if got := order(other); got != packetAhead {
					t.Errorf("%s: between other portals, or at another relay: %s", test.name, got)
				}
			}
		})
	}
}

// Packet mode has no preface: what is written first is the other portal's.
func TestPacketModeDialsThePortOfItsConnectionAndSendsNothing(t *testing.T) {
	a := newAuthority(t)
	f := NewFinder(a.Credentials(identity.Portal, "ann"), slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const connection = 2*leg.PacketPorts + 3
	session := a.session(wire.NewSecret(), 0, 0)
	session.Relay.Packet = l.Addr().(*net.TCPAddr).AddrPort().Port() - 3
	way, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	ways, _ := way.Ways(connection)
	if len(ways) != 1 {
		t.Fatalf("a relay with packet ports only: %v", ways)
	}
	conn, err := ways[0].Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if mode, _ := way.Mode(); mode != "" {
		t.Errorf("path %q before any carrier took it", mode)
	}
	ways[0].Taken()
	if mode, addr := way.Mode(); mode != "relay-packet" || addr.String() != l.Addr().String() {
		t.Errorf("path %q at %v", mode, addr)
	}
	conn.Close()
	if b, err := io.ReadAll(far); len(b) > 0 || err != nil {
		t.Errorf("the far end read %x, %v", b, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	for i := range maxRemembered + 100 {
		m.packetFailed(pairing{"relay-1", fmt.Sprint(i)}, false)
		m.rememberSplice(fmt.Sprint(i), SharedTLS)
	}
	if len(m.doubted) != maxRemembered || len(m.splice) != maxRemembered {
		t.Errorf("%d and %d are remembered", len(m.doubted), len(m.splice))
	}
	last := maxRemembered + 99
	if !m.doubts(pairing{"relay-1", fmt.Sprint(last)}) || m.spliceFirst(fmt.Sprint(last)) != SharedTLS {
		t.Error("what came last was forgotten")
	}
}
