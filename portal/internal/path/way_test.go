package path

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
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

// plan says what is tried for a carrier, and when.
func plan(l *Leg) string {
	ways, at := l.Ways(0)
	return fmt.Sprint(ways, " ", at)
}

const (
	packetAhead = "[relay-packet relay another relay mode] [0s 225ms 1.225s]"
	bothAtOnce  = "[relay-packet relay another relay mode] [0s 0s 1s]"

	nothingKnown = "[relay-packet relay-udp relay another relay mode] [0s 50ms 225ms 1.225s]"
	quicAtOnce   = "[relay-packet relay-udp relay another relay mode] [0s 0s 225ms 1.225s]"
	allAtOnce    = "[relay-packet relay-udp relay another relay mode] [0s 0s 0s 1s]"
	quicDoubted  = "[relay-packet relay-udp relay another relay mode] [0s 50ms 225ms 1.225s]"
)

// raced is the ways of one carrier, as if they had been tried: what Dial and
// Quic note is noted by the test. Time is a bubble's.
type raced struct{ *race }

// began has a way begun so long ago, and up so long ago; up < 0: not yet.
func (r raced) packetUp(began, up time.Duration) {
	r.packet.began = time.Now().Add(-began)
	if up >= 0 {
		r.packet.up = time.Now().Add(-up)
		r.leg.stalled.Store(true)
	}
}

func (r raced) quicUp(began, up time.Duration) {
	r.quic.began = time.Now().Add(-began)
	if up >= 0 {
		r.quic.up = time.Now().Add(-up)
	}
}

// spliceWon has splice mode carry, so long after it began.
func (r raced) spliceWon(took time.Duration) {
	r.splice.began = time.Now().Add(-took)
	r.splice.Taken()
}

// raceOf returns the ways of the next carrier between two portals.
func raceOf(l *Leg) raced {
	ways, _ := l.Ways(0)
	r := ways[0].(*packetWay).race
	conn := &tcpConn{finder: l.finder, relay: l.Relay(), stop: func() {}}
	r.packet.conn, r.splice.used = conn, &dialed{candidate: l.splice[0], tcp: conn}
	return raced{r}
}

// What happens to the ways of a carrier decides whether the next one begins
// with packet mode.
func TestPacketModeIsAheadUnlessItHasFailed(t *testing.T) {
	ms := time.Millisecond
	over := func(r raced) { r.spliceWon(300 * ms) }
	doubt := func(r raced) {
		r.packetUp(550*ms, -1)
		over(r)
	}
	carry := func(r raced) {
		r.packetUp(100*ms, 50*ms)
		r.packet.Taken()
	}
	broke := func(r raced) {
		carry(r)
		r.packet.Lost()
	}
	connectAndLose := func(r raced) {
		r.packetUp(550*ms, 100*ms)
		over(r)
	}
	for _, test := range []struct {
		name string
		then []func(r raced) // for one carrier each
		want string
	}{
		{"nothing is known", nil, packetAhead},
		{"it worked", []func(raced){carry}, packetAhead},
		{"it did not connect and splice mode carried", []func(raced){doubt}, bothAtOnce},
		{"it was refused and splice mode carried", []func(raced){func(r raced) {
			r.packet.began, r.packet.failed = time.Now().Add(-301*ms), true
			over(r)
		}}, bothAtOnce},
		{"it connected a moment ago, and splice mode was quicker", []func(raced){func(r raced) {
			r.packetUp(550*ms, 300*ms)
			over(r)
		}}, packetAhead},
		{"it connected long ago, and splice mode carried", []func(raced){func(r raced) {
			r.packetUp(550*ms, 301*ms)
			over(r)
		}}, bothAtOnce},
		{"it carried and broke at once", []func(raced){broke}, bothAtOnce},
		{"splice mode carried and broke at once", []func(raced){func(r raced) { connectAndLose(r); r.splice.Lost() }}, packetAhead},
		{"it connected and no carrier came up", []func(raced){func(r raced) { r.packetUp(10*time.Second, 9*time.Second); r.leg.Failed() }}, bothAtOnce},
		{"nothing connected", []func(raced){func(r raced) { r.packetUp(10*time.Second, -1); r.leg.Failed() }}, packetAhead},
		{"it works again", []func(raced){doubt, carry}, packetAhead},
		{"it connects again, and loses", []func(raced){doubt, connectAndLose}, packetAhead},
		{"it broke, connects again and loses", []func(raced){broke, connectAndLose}, bothAtOnce},
		{"it broke, and carries again", []func(raced){broke, carry}, packetAhead},
		{"it was not ahead, and loses", []func(raced){doubt, func(r raced) { time.Sleep(doubtTime - time.Second); doubt(r) }}, bothAtOnce},
		{"losing while it is not ahead does not prolong the doubt", []func(raced){doubt, func(r raced) {
			time.Sleep(doubtTime - time.Second)
			doubt(r)
			time.Sleep(time.Second)
		}}, packetAhead},
	} {
		own := newAuthority(t).Credentials(identity.Portal, "ann")
		synctest.Test(t, func(t *testing.T) {
			f := NewFinder(Config{Credentials: own, Log: slog.New(slog.DiscardHandler)})
			for _, then := range test.then {
				then(raceOf(legTo(t, f, "relay-1", "factory")))
			}
			if got := plan(legTo(t, f, "relay-1", "factory")); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
			if got := plan(legTo(t, f, "relay-2", "factory")); got != test.want {
				t.Errorf("%s, at a relay of which nothing is known: %s, want %s", test.name, got, test.want)
			}
			if got := plan(legTo(t, f, "relay-1", "plant")); got != packetAhead {
				t.Errorf("%s, between other portals: %s", test.name, got)
			}
		})
	}
}

// withUDPTo returns a leg with all ways.
func withUDPTo(t *testing.T, f *Finder) *Leg {
	l := legTo(t, f, "relay-1", "factory")
	l.udp = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:20000")}
	return l
}

func TestNextCarrierBeginsWithWhatWorkedInThisNetwork(t *testing.T) {
	ms := time.Millisecond
	noOddTCP := func(r raced) { // QUIC wins
		r.packetUp(150*ms, -1)
		r.quicUp(100*ms, 10*ms)
		r.quic.Taken()
	}
	noUDP := func(r raced) { // and packet mode does
		r.packetUp(100*ms, 50*ms)
		r.quicUp(50*ms, -1)
		r.packet.Taken()
	}
	neither := func(r raced) { // splice mode wins, as late as it begins
		r.packetUp(400*ms, -1)
		r.quicUp(350*ms, -1)
		r.spliceWon(150 * ms)
	}
	for _, test := range []struct {
		name string
		then []func(r raced)
		want string
	}{
		{"nothing is known", nil, nothingKnown},
		{"QUIC was the quickest", []func(raced){noOddTCP}, quicAtOnce},
		{"packet mode is, later", []func(raced){noOddTCP, noUDP}, nothingKnown},
		{"no UDP: nobody waits for it", []func(raced){noUDP}, nothingKnown},
		{"neither UDP nor odd TCP ports", []func(raced){neither}, allAtOnce},
		{"a day later", []func(raced){neither, func(raced) { time.Sleep(doubtTime) }}, nothingKnown},
		{"QUIC works again, and loses", []func(raced){neither, func(r raced) { r.quicUp(100*ms, 0); r.spliceWon(50 * ms) }}, quicAtOnce},
		{"QUIC carried and broke at once", []func(raced){neither, func(r raced) { r.quicUp(100*ms, 0); r.quic.Taken(); r.quic.Lost() }}, allAtOnce},
		{"packet mode works again", []func(raced){neither, noUDP}, quicDoubted},
	} {
		own := newAuthority(t).Credentials(identity.Portal, "ann")
		synctest.Test(t, func(t *testing.T) {
			f := NewFinder(Config{Credentials: own, Log: slog.New(slog.DiscardHandler)})
			place := "home"
			f.memory.network = func() string { return place }
			for _, then := range test.then {
				then(raceOf(withUDPTo(t, f)))
			}
			if got := plan(withUDPTo(t, f)); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
			place = "hotel"
			if got := plan(withUDPTo(t, f)); got != nothingKnown {
				t.Errorf("%s, in another network: %s, want %s", test.name, got, nothingKnown)
			}
		})
	}
}

func TestFurtherCarriersAreOfTheirKindAndMeetingsOfNoNumber(t *testing.T) {
	a := newAuthority(t)
	f := a.finder("ann")
	all := withUDPTo(t, f)
	say := func(ways []Way, at []time.Duration) string { return fmt.Sprint(ways, " ", at) }
	if got, want := say(all.Of(3, wire.CarrierTCP)), "[relay-packet relay] [0s 225ms]"; got != want {
		t.Errorf("a further carrier of TCP: %s, want %s", got, want)
	}
	if got, want := say(all.Of(3, wire.CarrierQUIC)), "[relay-udp] [0s]"; got != want {
		t.Errorf("a further carrier of QUIC: %s, want %s", got, want)
	}
	if got, want := say(all.Again()), "[relay relay-udp relay] [0s 0s 1.5s]"; got != want {
		t.Errorf("after a loss: %s, want %s", got, want)
	}
	ticket, err := f.Ticket(wire.Ticket{
		Session: wire.NewSessionID(), Peer: "factory", Transports: Transports,
		Relay: withUDP(access("192.0.2.2", 0, 443), 0, 3478),
	}, netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer ticket.Close()
	if got, want := say(ticket.Ways(0)), "[relay relay-udp relay] [0s 0s 1.5s]"; got != want || !ticket.own {
		t.Errorf("a ticket: %s, own socket %v, want %s", got, ticket.own, want)
	}
	if got := say(legTo(t, f, "relay-1", "factory").Of(3, wire.CarrierQUIC)); got != "[] []" {
		t.Errorf("QUIC where there is no UDP: %s", got)
	}
}

func TestSmallSegmentsAreForOneNetworkAndOneDay(t *testing.T) {
	own := newAuthority(t).Credentials(identity.Portal, "ann")
	synctest.Test(t, func(t *testing.T) {
		f := NewFinder(Config{Credentials: own, Log: slog.New(slog.DiscardHandler)})
		place := "home"
		f.memory.network = func() string { return place }
		small := func(what string, want, elsewhere bool) {
			t.Helper()
			if got, other := f.memory.small("relay-1"), f.memory.small("relay-2"); got != want || other != elsewhere {
				t.Errorf("%s: small segments %v, to another relay %v; want %v, %v", what, got, other, want, elsewhere)
			}
		}
		taken := func(small bool) raced {
			r := raceOf(legTo(t, f, "relay-1", "factory"))
			r.packet.conn.small = small
			r.packetUp(100*time.Millisecond, 50*time.Millisecond)
			r.packet.Taken()
			return r
		}
		carrier := taken(false)
		small("a carrier came up", false, false)
		carrier.packet.Stuck()
		small("it got stuck, and the line may be at fault", true, true)
		taken(false) // dialled before
		time.Sleep(suspectTime)
		small("nothing shows that small ones are better", false, false)
		carrier.packet.Stuck()
		taken(true)
		time.Sleep(suspectTime)
		small("they are, to this relay", true, false)
		place = "hotel"
		small("another network", false, false)
		place = "home"
		time.Sleep(smallTime)
		small("a day later", false, false)
	})
}

func TestSessionWithoutPacketModeBeginsWithTCP(t *testing.T) {
	f := newAuthority(t).finder("ann")
	l := withUDPTo(t, f)
	l.packet = netip.AddrPort{}
	if got, want := plan(l), "[relay relay-udp another relay mode] [0s 50ms 1s]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f.memory.won(l.pairing(), true)
	if got, want := plan(l), "[relay-udp relay another relay mode] [0s 0s 1s]"; got != want {
		t.Errorf("QUIC was the quickest: %s, want %s", got, want)
	}
	l.splice = nil
	f.memory.won(l.pairing(), false)
	if got, want := plan(l), "[relay-udp] [0s]"; got != want {
		t.Errorf("UDP alone: %s, want %s", got, want)
	}
}

// Packet mode has no preface: what is written first is the other portal's.
func TestPacketModeDialsThePortOfItsConnectionAndSendsNothing(t *testing.T) {
	a := newAuthority(t)
	f := a.finder("ann")
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
	conn, err := ways[0].(StreamWay).Dial(t.Context())
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
	m := newMemory(func() string { return "" })
	for i := range maxRemembered/2 + 100 {
		m.failed(packetBad, pairing{"relay-1", fmt.Sprint(i)}, false)
	}
	if len(m.facts) != maxRemembered {
		t.Errorf("%d facts are remembered", len(m.facts))
	}
	if !m.doubts(packetBad, pairing{"relay-1", fmt.Sprint(maxRemembered/2 + 99)}) {
		t.Error("what came last was forgotten")
	}
}
