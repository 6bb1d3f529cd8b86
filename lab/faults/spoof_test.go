package faults

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/forge"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"
)

// bindRequest is the first packet by which a portal binds its leg.
func bindRequest(id leg.ID, secret wire.Secret, counter uint64) []byte {
	packet, _ := leg.NewBinder(id, secret, counter).Packet(time.Now())
	return packet
}

// bind binds a leg honestly and returns its socket. A relay reads a port's packets in order: what was sent to it before
// has been judged when this returns.
func bind(t *testing.T, host *topo.Host, s wire.Session, counter uint64) *net.UDPConn {
	t.Helper()
	conn := host.ListenUDP(0)
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	to := netip.AddrPortFrom(s.Relay.Addresses[0].Unmap(), s.Relay.UDP)
	if _, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: s.ID, Leg: s.Leg}, s.Secret, counter), conn, to); err != nil {
		t.Fatal(err)
	}
	return conn
}

// T4: who forges a source cannot make the relay send to it, but for challenges that are smaller than what they answer,
// and only if he holds a leg secret.
func TestRelayReflectsNothing(t *testing.T) {
	w := newNetwork(t)
	mallory, eve, sessions := w.meet()
	victim, attacker := w.lab.Public("victim"), forge.New(t, w.lab.Public("stranger"))
	own := leg.ID{Session: sessions[0].ID, Leg: sessions[0].Leg}
	relay := w.relayAddr(sessions[0].Relay.UDP)
	from := netip.AddrPortFrom(victim.Addr(), 5000)
	arrived := victim.CountArrivals()
	count := 300
	if *full {
		count = 100_000
	}

	other := leg.ID{Session: wire.NewSessionID(), Leg: 0}
	for i := range count {
		for _, packet := range [][]byte{
			make([]byte, i%1400),
			bindRequest(other, wire.NewSecret(), uint64(i)),
			bindRequest(own, wire.NewSecret(), uint64(i)),
			bindRequest(own, sessions[0].Secret, uint64(i))[:150],
		} {
			attacker.UDP(from, relay, packet)
		}
		if i%100 == 99 { // a socket's queue is short
			bind(t, eve, sessions[1], uint64(1000*i)).Close()
		}
	}
	if got := arrived(); got.Packets > 0 {
		t.Errorf("the victim got %d packets without any secret", got.Packets)
	}

	// A portal that harms with its own leg: each challenge is smaller than its request.
	before := attacker.Sent()
	for i := range count {
		attacker.UDP(from, relay, bindRequest(own, sessions[0].Secret, uint64(i)))
	}
	bind(t, eve, sessions[1], uint64(10_000*count)).Close()
	got, sent := arrived(), attacker.Sent()-before
	t.Logf("%d bytes were sent with the leg's secret, the victim got %d", sent, got.Bytes)
	if got.Packets == 0 || got.Bytes > uint64(sent) {
		t.Errorf("the victim got %d packets of %d bytes for %d bytes; want some, of no more bytes", got.Packets, got.Bytes, sent)
	}

	// A bind that was recorded binds nobody else, and is not even answered.
	recorded := uint64(20_000 * count)
	legit := bind(t, mallory, sessions[0], recorded)
	was := arrived()
	for range 100 {
		attacker.UDP(from, relay, bindRequest(own, sessions[0].Secret, recorded-1))
	}
	far := bind(t, eve, sessions[1], recorded)
	if got := arrived(); got.Packets > was.Packets {
		t.Errorf("the victim got %d packets for replayed binds", got.Packets-was.Packets)
	}
	// The leg is where it was: data reaches it, and not the victim.
	carry(t, far, relay, legit)
	if got := arrived(); got.Packets > was.Packets {
		t.Errorf("the victim got %d packets of the session", got.Packets-was.Packets)
	}
}

// carry sends a datagram into the relay and wants it at the other leg.
func carry(t *testing.T, from *net.UDPConn, relay netip.AddrPort, to *net.UDPConn) {
	t.Helper()
	await.Limit(t, to)
	if _, err := from.WriteToUDPAddrPort([]byte("data"), relay); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, _, err := to.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "data" {
		t.Fatalf("got %q, %v", b[:n], err)
	}
}

// T5: a relay cannot be made to talk to itself or to another relay. Packets that seem to come from its own machine do not
// even reach it: Linux drops them as martians.
func TestRelaysDoNotLoop(t *testing.T) {
	w := newNetwork(t)
	_, eve, sessions := w.meet()
	second := w.Relay(w.lab.Public("relay-2"))
	attacker := forge.New(t, w.lab.Public("stranger"))
	own := leg.ID{Session: sessions[0].ID, Leg: sessions[0].Leg}
	relay := w.relayAddr(sessions[0].Relay.UDP)
	atRelay, atSecond := w.relay.Host().CountArrivals(), second.Host().CountArrivals()
	sources := []netip.AddrPort{
		relay, // its own port
		w.relayAddr(sessions[0].Relay.UDP + 1),
		netip.AddrPortFrom(second.Host().Addr(), 20000),
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), relay.Port()),
		netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), 9),
		netip.AddrPortFrom(netip.MustParseAddr("224.0.0.1"), 9),
	}
	control := atRelay().Packets // some of the control connection come meanwhile
	for i, source := range sources {
		attacker.UDP(source, relay, bindRequest(own, sessions[0].Secret, uint64(i)))
		attacker.UDP(source, relay, []byte("data from a leg that is not bound"))
	}
	far := bind(t, eve, sessions[1], 1)
	if _, err := far.WriteToUDPAddrPort([]byte("into the loop"), relay); err != nil {
		t.Fatal(err)
	}
	bind(t, eve, sessions[1], 2)
	const honest = 20 // packets of three binds and of the control connections
	if got := atRelay().Packets - control; got > uint64(2*len(sources)+honest) {
		t.Errorf("%d packets reached the relay for %d that were sent: they went round", got, 2*len(sources)+honest)
	}
	if got := atSecond(); got.Packets > honest {
		t.Errorf("%d packets reached the second relay", got.Packets)
	}
	if n := w.relayStatus().Sessions[0].Bound; n != 1 {
		t.Errorf("%d legs are bound, want only the honest one", n)
	}
}
