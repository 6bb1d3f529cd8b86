package packet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// relay passes packets between two sources, as one does for bound legs.
type relay struct {
	*net.UDPConn
	addr netip.AddrPort
	legs [2]atomic.Pointer[netip.AddrPort]
}

func newRelay(t *testing.T, network string) *relay {
	t.Helper()
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if network == "udp6" {
		local.IP = net.IPv6loopback
	}
	c, err := net.ListenUDP(network, local)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{UDPConn: c, addr: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	var serving sync.WaitGroup
	serving.Go(r.serve)
	t.Cleanup(func() {
		c.Close()
		serving.Wait()
	})
	return r
}

func (r *relay) serve() {
	b := make([]byte, 2048)
	for {
		n, from, err := r.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for i := range r.legs {
			if leg, other := r.legs[i].Load(), r.legs[1-i].Load(); err == nil && leg != nil && *leg == from && other != nil {
				r.WriteToUDPAddrPort(b[:n], *other)
				break
			}
		}
	}
}

// bind has the relay know an Endpoint as leg i.
func (r *relay) bind(i int, e *Endpoint) {
	at := netip.AddrPortFrom(r.addr.Addr(), e.line.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	r.legs[i].Store(&at)
}

func newSockets(t testing.TB) *Sockets {
	s := NewSockets(slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s
}

// owner is a test that uses an Endpoint.
type owner struct {
	packet func([]byte)
	moved  func()
}

func (o owner) Packet(b []byte) { o.packet(b) }
func (o owner) Moved()          { o.moved() }

// surprised wants neither packets nor moves.
func surprised(t testing.TB) owner {
	return owner{func(b []byte) { t.Errorf("got %x", b) }, func() { t.Error("moved") }}
}

func open(t testing.TB, s *Sockets, relay netip.AddrPort, own bool, o owner) *Endpoint {
	t.Helper()
	e, err := s.Open(relay, own, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// proofs returns the TLS configurations of two portals.
func proofs(t testing.TB) (client, server *tls.Config) {
	a := identitytest.New(t)
	return a.Credentials(identity.Portal, "ann").ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "factory")),
		a.Credentials(identity.Portal, "factory").ServerTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "ann"))
}

// pair is two portals with a QUIC connection over a relay.
type pair struct {
	relay *relay
	ends  [2]*Endpoint
	conns [2]*quic.Conn
	moves atomic.Int64
}

func newPair(t *testing.T, network string) *pair {
	t.Helper()
	p := &pair{relay: newRelay(t, network)}
	client, server := proofs(t)
	for i := range p.ends {
		p.ends[i] = open(t, newSockets(t), p.relay.addr, false, owner{moved: func() {
			p.moves.Add(1)
			p.relay.bind(i, p.ends[i])
		}})
		p.relay.bind(i, p.ends[i])
	}
	p.ends[1].Expect(server, &quic.Config{MaxIdleTimeout: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if p.conns[0], err = p.ends[0].Dial(ctx, client, &quic.Config{MaxIdleTimeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if p.conns[1], err = p.ends[1].Accept(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range p.conns {
			c.CloseWithError(0, "")
		}
	})
	return p
}

// carry sends n bytes from one end to the other and returns when they are
// there, and right. meanwhile is called when the first have arrived.
func (p *pair) carry(t *testing.T, from, n int, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	sent := bytes.Repeat([]byte("netport "), n/8)
	out, err := p.conns[from].OpenUniStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		if _, err := out.Write(sent); err != nil {
			t.Error(err)
		}
		out.Close()
	})
	in, err := p.conns[1-from].AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(60 * time.Second))
	got := make([]byte, 1)
	if _, err := io.ReadFull(in, got); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	rest, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, rest...), sent) {
		t.Errorf("%d bytes came, and not those that were sent", 1+len(rest))
	}
}

func TestQUICRunsOverTheRelayOfItsEndpoint(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			p := newPair(t, network)
			began := time.Now()
			p.carry(t, 0, 1<<20, nil)
			p.carry(t, 1, 1<<20, nil)
			for i, e := range p.ends {
				if e.Heard().Before(began) || e.Sent().Before(began) {
					t.Errorf("end %d: heard %v, sent %v, the transfer began %v", i, e.Heard(), e.Sent(), began)
				}
			}
			if p.conns[1].RemoteAddr().String() != p.relay.addr.String() {
				t.Errorf("remote address %v, want the relay's %v", p.conns[1].RemoteAddr(), p.relay.addr)
			}
		})
	}
}

func TestStrangersGetNoAnswer(t *testing.T) {
	p := newPair(t, "udp4")
	client, _ := proofs(t)
	e := p.ends[1]
	to := netip.AddrPortFrom(p.relay.addr.Addr(), e.line.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	stranger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: stranger}
	defer stranger.Close()
	defer tr.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(to), client, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stranger's handshake: %v, want silence", err)
	}
	for _, b := range [][]byte{{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, {}, bytes.Repeat([]byte{0xff}, 1300)} { // the last: a version that nobody speaks
		if _, err := tr.WriteTo(b, net.UDPAddrFromAddrPort(to)); err != nil {
			t.Fatal(err)
		}
	}
	p.carry(t, 0, 1<<16, nil) // nobody else minds
	for deadline := time.After(10 * time.Second); e.line.strangers.Load() < 5; {
		select {
		case <-deadline:
			t.Fatalf("%d packets of strangers were counted, at least 2 of the handshake and 3 more were sent", e.line.strangers.Load())
		case <-time.After(time.Millisecond):
		}
	}
	tr.Close()
	stranger.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _, err := stranger.ReadFromUDPAddrPort(make([]byte, 1500)); err == nil {
		t.Errorf("a stranger was sent %d bytes", n)
	}
}

func TestConnectionNobodyWaitsForIsRefused(t *testing.T) {
	p := newPair(t, "udp4")
	client, _ := proofs(t)
	var refused *quic.TransportError
	if _, err := p.ends[1].Dial(t.Context(), client, nil); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("the other way round: %v, want a refusal", err)
	}
}

func TestWhatIsNotForQUICGoesToTheOwner(t *testing.T) {
	r := newRelay(t, "udp4")
	got := make(chan []byte, 4)
	e := open(t, newSockets(t), r.addr, false, owner{packet: func(b []byte) { got <- bytes.Clone(b) }})
	r.bind(0, e)
	r.bind(1, e) // what it sends comes back
	for _, b := range [][]byte{{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, {0x3f}} {
		e.Send(b)
		select {
		case back := <-got:
			if !bytes.Equal(back, b) {
				t.Errorf("got %x, want %x", back, b)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%x did not come", b)
		}
	}
}

func TestBrokenSocketIsReplacedUnderRunningConnections(t *testing.T) {
	p := newPair(t, "udp4")
	for i, e := range p.ends {
		broken := e.line.socket.Load()
		p.carry(t, i, 4<<20, func() { broken.Close() })
		if e.line.socket.Load() == broken || p.moves.Load() != int64(i+1) {
			t.Errorf("end %d: the socket was replaced %d times in all", i, p.moves.Load())
		}
	}
}

func TestReplacedSocketKeepsItsPort(t *testing.T) {
	p := newPair(t, "udp4")
	c := p.ends[0].line.conn
	before := c.LocalAddr().String()
	if err := c.replace(c.socket.Load(), errors.New("test")); err != nil {
		t.Fatal(err)
	}
	if now := c.LocalAddr().String(); now != before {
		t.Errorf("port %v, was %v, and nobody else has that", now, before)
	}
	p.carry(t, 1, 1<<16, nil)
}

func TestEndpointsShareASocketUnlessTheirAddressesAreTheSame(t *testing.T) {
	s := newSockets(t)
	at := func(a string) netip.AddrPort { return netip.MustParseAddrPort(a) }
	first := open(t, s, at("127.0.0.1:20000"), false, surprised(t))
	second := open(t, s, at("127.0.0.1:20001"), false, surprised(t))
	same := open(t, s, at("127.0.0.1:20000"), false, surprised(t))
	own := open(t, s, at("127.0.0.1:3478"), true, surprised(t))
	other := open(t, s, at("[::1]:20000"), false, surprised(t))
	if first.line != second.line {
		t.Error("two relays' addresses have a socket each")
	}
	lines := map[*line]bool{first.line: true, same.line: true, own.line: true, other.line: true}
	if len(lines) != 4 {
		t.Error("one address twice, one of its own and one of IPv6 do not have four sockets")
	}
	same.Close()
	own.Close()
	if len(s.all) != 2 {
		t.Errorf("%d sockets are open, want the two shared ones", len(s.all))
	}
}

func TestSharedSocketOutlivesItsLastEndpointForAWhile(t *testing.T) {
	s := newSockets(t)
	at := netip.MustParseAddrPort("127.0.0.1:20000")
	first := open(t, s, at, false, surprised(t))
	first.Close()
	again := open(t, s, at, false, surprised(t))
	if again.line != first.line {
		t.Error("the next Endpoint has another socket")
	}
	s.closeUnused(again.line)
	if len(s.all) != 1 {
		t.Error("a socket that is in use was closed")
	}
	again.Close()
	s.closeUnused(again.line) // as the timer does
	if len(s.all) != 0 || len(s.shared) != 0 {
		t.Error("an unused socket is still open")
	}
	if later := open(t, s, at, false, surprised(t)); later.line == again.line {
		t.Error("a closed socket is used again")
	}
}

func TestClosedEndpointEndsAccept(t *testing.T) {
	e := open(t, newSockets(t), netip.MustParseAddrPort("127.0.0.1:20000"), false, surprised(t))
	done := make(chan error)
	go func() {
		_, err := e.Accept(t.Context())
		done <- err
	}()
	e.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}
