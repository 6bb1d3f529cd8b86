package direct

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// talker is somebody at a socket of his own who talks to a portal's shared one.
type talker struct {
	t    testing.TB
	conn *net.UDPConn
	to   netip.AddrPort
	sent uint32
}

func newTalker(t testing.TB, p *portal) *talker {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return &talker{t: t, conn: c, to: netip.AddrPortFrom(loopback, p.finder.port(loopback).Local())}
}

func (k *talker) say(b []byte) {
	k.t.Helper()
	if _, err := k.conn.WriteToUDPAddrPort(b, k.to); err != nil {
		k.t.Fatal(err)
	}
}

// ask returns the next probe of the peer, which is the TLS server, with a token.
func (k *talker) ask(token uint64) []byte {
	k.sent++
	return probe.Probe{Echo: leg.Echo{Token: token, Interval: time.Second}, Counter: k.sent}.AppendTo(nil, keys.ToClient, keys.Key)
}

// hear returns what comes within a time; nil: nothing.
func (k *talker) hear(within time.Duration) []byte {
	k.t.Helper()
	b := make([]byte, 2048)
	k.conn.SetReadDeadline(time.Now().Add(within))
	n, _, err := k.conn.ReadFromUDPAddrPort(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return b[:n]
}

// answered waits for the answer with a token.
func (k *talker) answered(token uint64) probe.Probe {
	k.t.Helper()
	for {
		b := k.hear(10 * time.Second)
		m, err := probe.Open(b, keys.Key)
		if err != nil {
			k.t.Fatalf("got %x, want an answer with token %d", b, token)
		}
		if m.Echo.Answer && m.Echo.Token == token {
			return m
		}
	}
}

// G1 on the shared socket: whatever a stranger sends, he gets nothing.
func TestStrangerGetsNothing(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	peer, stranger := newTalker(t, p), newTalker(t, p)
	junk := func(n int, first byte) []byte {
		b := make([]byte, n)
		rand.Read(b)
		b[0] = first
		return b
	}
	forged := peer.ask(7)
	forged[len(forged)-1] ^= 1
	reflected := probe.Probe{Echo: leg.Echo{Token: 1, Interval: time.Second}, Counter: 1}.AppendTo(nil, keys.ToServer, keys.Key)
	for _, b := range [][]byte{
		{0}, {0xff}, junk(1200, 0xc0), junk(1200, 0x40), junk(1452, 0xff), junk(probe.Len, 3), junk(probe.Len, 4), junk(leg.EchoLen, 1),
		leg.Echo{Token: 1, Interval: time.Second}.AppendTo(nil), forged, reflected, append(peer.ask(8), 0), peer.ask(9)[1:],
	} {
		stranger.say(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	strange := &quic.Transport{Conn: stranger.conn}
	defer strange.Close()
	if _, err := strange.Dial(ctx, net.UDPAddrFromAddrPort(stranger.to), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"netport-tunnel/1"}}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("QUIC of a stranger: %v, want that nobody answers", err)
	}
	peer.say(peer.ask(10)) // it is the first that is right
	peer.answered(10)
	again := newTalker(t, p)
	for _, b := range [][]byte{forged, reflected, junk(1200, 0xc0)} {
		again.say(b)
	}
	peer.say(peer.ask(11)) // the portal takes them in this order
	peer.answered(11)
	if b := again.hear(100 * time.Millisecond); b != nil {
		t.Errorf("a stranger got %x", b)
	}
}

// A probe of the peer that somebody has caught is good for nothing, from wherever he
// sends it.
func TestCaughtProbeDoesNothing(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	peer, thief := newTalker(t, p), newTalker(t, p)
	caught := peer.ask(1)
	peer.say(caught)
	if m := peer.answered(1); m.Seen != peer.conn.LocalAddr().(*net.UDPAddr).AddrPort() {
		t.Errorf("the peer was seen at %v", m.Seen)
	}
	for range 100 {
		thief.say(caught)
	}
	peer.say(peer.ask(2))
	peer.answered(2)
	if b := thief.hear(100 * time.Millisecond); b != nil {
		t.Errorf("who sends a probe again got %x", b)
	}
	if n := len(p.State().Tries); n != 1 {
		t.Errorf("%d addresses are searched, want the peer's", n)
	}
}

// The peer may have its probes seem to come from a victim: that gets no more than
// answers as long as the probes, some of them, and a few probes.
func TestPeerCannotPointAPortalAtAVictim(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	peer := newTalker(t, p) // and victim: it never answers
	const asks = 1000
	for i := range asks {
		peer.say(peer.ask(uint64(1000 + i)))
		if i%50 == 0 { // no buffer overflows
			p.State()
		}
	}
	answers, probes := 0, 0
	for b := peer.hear(time.Second); b != nil; b = peer.hear(200 * time.Millisecond) {
		if len(b) != probe.Len {
			t.Errorf("%d bytes for a probe of %d", len(b), probe.Len)
		}
		switch m, err := probe.Open(b, keys.Key); {
		case err != nil:
			t.Errorf("got %x", b)
		case m.Echo.Answer:
			answers++
		default:
			probes++
		}
	}
	if answers > answersAtOnce+1 || answers < answersAtOnce/4 || probes == 0 || probes > 2*perSecond+1 {
		t.Errorf("%d answers and %d probes to an address that answers nothing", answers, probes)
	}
	if most := 48_000; maxUnanswered*probe.Len > most || maxUnanswered > 480 {
		t.Errorf("%d probes, %d bytes for one peer, want 480 and %d", maxUnanswered, maxUnanswered*probe.Len, most)
	}
}

// An answer that nobody asked for opens no way, and one from elsewhere neither.
func TestOnlyTheAskedAddressCanAnswer(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	peer, other := newTalker(t, p), newTalker(t, p)
	at := peer.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	p.Peer([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: at}})
	asked, err := probe.Open(peer.hear(10*time.Second), keys.Key)
	if err != nil || asked.Echo.Answer {
		t.Fatalf("%+v, %v", asked, err)
	}
	answer := func(token uint64) []byte {
		peer.sent++
		return probe.Probe{Echo: leg.Echo{Answer: true, Token: token, Interval: time.Second}, Counter: peer.sent, Seen: peer.to}.AppendTo(nil, keys.ToClient, keys.Key)
	}
	peer.say(answer(asked.Echo.Token + 1))
	other.say(answer(asked.Echo.Token))
	peer.say(peer.ask(5)) // taken after them
	peer.answered(5)
	for _, x := range p.State().Tries {
		if x.Answered > 0 {
			t.Errorf("%v has answered", x.Addr)
		}
	}
	peer.say(answer(asked.Echo.Token))
	eventually(t, "the way is open", func() bool { return p.State().Tries[0].Answered == 1 && p.State().Tries[0].Use == "open" })
}

// A neighbour who claims to be a peer at ever other addresses uses up what may be sent at the
// word of neighbours, and nothing of what is left for the addresses that the peer names.
func TestNeighboursDoNotSpendWhatIsThePeers(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	again := keys
	again.ToClient, again.ToServer = probe.ID{8}, probe.ID{9}
	near := p.finder.Open(Tunnel{Peer: "peer", Heard: true, Client: true, Keys: again, QUIC: &quic.Config{}, Offer: nobody})
	defer near.Close()
	victim := netip.MustParseAddr("192.0.2.1")
	for port := uint16(2000); near.search.quota.spend(netip.AddrPortFrom(victim, port), time.Now()); port++ {
	}
	peer := newTalker(t, p)
	p.Peer([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: peer.conn.LocalAddr().(*net.UDPAddr).AddrPort()}})
	if _, err := probe.Open(peer.hear(10*time.Second), keys.Key); err != nil {
		t.Errorf("the peer's own address was asked by %v", err)
	}
}

// What was spent comes back at once when this portal is elsewhere, not when an interface comes or goes.
func TestInterfacesGiveNothingBack(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	victim := netip.MustParseAddrPort("203.0.113.1:2000")
	for range perAddress {
		p.search.quota.spend(victim, time.Now())
	}
	for _, elsewhere := range []bool{false, true} {
		p.finder.moved(elsewhere)
		if got := p.search.quota.spend(victim, time.Now()); got != elsewhere {
			t.Errorf("another network: %t, another probe may be sent: %t", elsewhere, got)
		}
	}
}

// What replaces a socket may be the goroutine of a connection whose end is waited for under
// the Path's lock.
func TestReplacedSocketIsToldWithoutALock(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	told := make(chan struct{})
	p.mu.Lock()
	go func() {
		p.finder.Replaced()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("Replaced waits for the Path's lock")
	}
	p.mu.Unlock()
	<-told
}
