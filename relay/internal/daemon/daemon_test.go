package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
)

func TestSessionIsHeldForTheServerAndItsTrafficTold(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	m := order("a", "b")
	ready := s.create(m)
	if ready.TCP == 0 || ready.TCP != ready.UDP {
		t.Errorf("ports %d and %d", ready.TCP, ready.UDP)
	}
	s.send(m)
	s.want("the same order again", ready)

	a, b := legs(t, m, ready.TCP)
	carry(t, a, b, "forth")
	carry(t, b, a, "back")
	relay := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ready.UDP)
	var portals [2]*net.UDPConn
	for n := range portals {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		portals[n] = c
		id := leg.ID{Session: m.ID, Leg: uint8(n)}
		if _, err := legtest.Bind(t.Context(), leg.NewBinder(id, m.Legs[n].Secret, 0), c, relay); err != nil {
			t.Fatal(err)
		}
	}
	portals[0].WriteToUDPAddrPort([]byte("datagram"), relay)
	portals[1].SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	if n, err := portals[1].Read(buf); err != nil || string(buf[:n]) != "datagram" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}

	s.send(wire.EndSession{ID: m.ID, Reason: wire.ReasonRevoked})
	s.want("its end", wire.SessionOver{ID: m.ID, Reason: wire.ReasonRevoked, Forth: 5 + 8, Back: 4})
	if _, err := a.Read(buf); err == nil {
		t.Error("the leg goes on")
	}
	s.send(wire.EndSession{ID: m.ID, Reason: wire.ReasonRevoked})
	s.want("its end again", wire.SessionOver{ID: m.ID, Reason: wire.ReasonRevoked})
}

func TestSessionsOutliveTheServer(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	kept, lost := order("a", "b"), order("a", "c")
	ready := s.create(kept)
	s.create(lost)
	a, b := legs(t, kept, ready.TCP)
	carry(t, a, b, "before")
	s.send(wire.EndSession{ID: lost.ID, Reason: wire.ReasonRevoked})
	s.next("the end of one")
	s.hangUp()
	carry(t, b, a, "while the server is away")
	s.accept()
	s.wantReady(kept)
	carry(t, a, b, "after")
	s.send(wire.EndSession{ID: kept.ID, Reason: wire.ReasonRevoked})
	s.want("its end", wire.SessionOver{ID: kept.ID, Reason: wire.ReasonRevoked, Forth: 11, Back: 24})
}

func TestStopEndsSessionsAndTellsTheServer(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	m := order("a", "b")
	a, b := legs(t, m, s.create(m).TCP)
	carry(t, a, b, "x")
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	s.want("the end of the session", wire.SessionOver{ID: m.ID, Reason: wire.ReasonShutdown, Forth: 1})
	if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the leg ends with %v, want a reset", err)
	}
	if _, err := os.Stat(s.cfg.Socket); err == nil {
		t.Error("the socket is left behind")
	}
}

func TestIdleSessionIsOver(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	m := order("a", "b")
	m.Lifetime = 1
	s.create(m)
	s.want("its end", wire.SessionOver{ID: m.ID, Reason: wire.ReasonIdle})
}

func TestQuotaIsPerOpener(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	for _, peer := range []string{"b", "c", "d"} {
		s.create(order("a", peer))
	}
	s.wantRefused(order("a", "e"), wire.ReasonBusy)
	s.create(order("e", "a"))
	none := order("f", "g")
	none.Transports = wire.TransportPacket
	s.wantRefused(none, wire.ReasonRelayRefused)
}

// T5: a leg from another relay's ports is turned away, whatever it shows.
func TestNoLegIsTakenFromAnotherRelay(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	m := order("a", "b")
	ready := s.create(m)
	relay := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ready.UDP)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	elsewhere := wire.OtherRelay{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, First: 1, Last: 65535}
	s.send(wire.OtherRelays{More: true, Relays: []wire.OtherRelay{{Addresses: []netip.Addr{relay.Addr()}, First: port, Last: port}}})
	s.send(wire.OtherRelays{Relays: []wire.OtherRelay{elsewhere}})
	s.send(m)
	s.want("the order again, after the list", ready)

	bind := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: m.ID}, m.Legs[0].Secret, 0), c, relay)
		return err
	}
	if err := bind(); err == nil {
		t.Error("a leg is bound to another relay's port")
	}
	if v := s.status(); v.Drops["forbidden_source"] == 0 {
		t.Errorf("drops %v", v.Drops)
	}
	s.send(wire.OtherRelays{Relays: []wire.OtherRelay{elsewhere}})
	s.send(m)
	s.want("the order again, after the next list", ready)
	if err := bind(); err != nil {
		t.Errorf("the relay is gone, and its port still refused: %v", err)
	}
}

func TestPortOfAnotherProgramIsLeftAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	s := newServer(t, func(c *config.Config) { c.First, c.Last = port, port })
	s.wantReady()
	s.wantRefused(order("a", "b"), wire.ReasonBusy)
	if list := s.status().Sessions; len(list) != 0 {
		t.Errorf("%d sessions are left of a refused one", len(list))
	}
}

// So many ports in a row are other programs' that no more are tried: the session is refused, and not said to be where
// nobody listens.
func TestSessionIsRefusedWhereNoPortIsFound(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	for i := range maxPortTries {
		taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.cfg.First)+i)))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
	}
	s.wantRefused(order("a", "b"), wire.ReasonBusy)
	m := order("a", "b")
	a, b := legs(t, m, s.create(m).TCP)
	carry(t, a, b, "at the next port")
}

func TestStatusTellsWhatIsCarriedAndDropped(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	m := order("ann", "factory")
	ready := s.create(m)
	a, b := legs(t, m, ready.TCP)
	carry(t, a, b, "hello")
	stranger, err := net.Dial("tcp", a.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write(bytes.Repeat([]byte("x"), leg.PrefaceLen))
	stranger.SetDeadline(time.Now().Add(patience))
	stranger.Read(make([]byte, 1)) // it is closed, and so counted, or about to be

	var v Status
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if v = s.status(); v.Drops["malformed"] == 1 && v.Bytes == 5 {
			break
		}
	}
	if !v.Connected || v.Server != "server" || v.Name != "relay-1" || v.Pairs != 1 || v.Bytes != 5 || v.Drops["malformed"] != 1 || len(v.Sessions) != 1 {
		t.Fatalf("status %+v", v)
	}
	got := v.Sessions[0]
	want := fmt.Sprintf("%v ann factory %d 1 5 0", m.ID, ready.TCP)
	if g := fmt.Sprintf("%v %s %s %d %d %d %d", got.ID, got.Opener, got.Peer, got.Port, got.Spliced, got.Forth, got.Back); g != want {
		t.Errorf("session %q, want %q", g, want)
	}
}
