package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// waitFor waits until what is true. The test's own deadline ends it.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// meet makes the carriers of a session of two portals, as a relay and meetings
// on both sides do.
type meet struct {
	session        wire.SessionID
	client, server *tls.Config
	pair           func() (client, server net.Conn)

	mu      sync.Mutex
	next    uint16
	waiting map[uint16]chan carrier.Conn // the server's, by number
	roads   []*road
}

// road is a carrier at both ends, and what it runs over; nil for QUIC.
type road struct {
	client, server carrier.Conn
	a, b           net.Conn
}

func newMeet(t testing.TB, pair func() (client, server net.Conn)) *meet {
	m := &meet{session: wire.NewSessionID(), pair: pair, waiting: make(map[uint16]chan carrier.Conn)}
	m.client, m.server = carriertest.TLS(t)
	return m
}

// overTCP is what most tests run over.
func overTCP(t testing.TB) func() (client, server net.Conn) {
	return func() (net.Conn, net.Conn) { a, b := carriertest.TCP(t); return a, b }
}

// road makes a carrier, with HELLO sent on both sides.
func (m *meet) road(ctx context.Context, n uint16) (*road, error) {
	a, b := m.pair()
	c, s, err := carriertest.OverTCP(ctx, a, b, m.client, m.server, m.session, n)
	if err != nil {
		return nil, err
	}
	r := &road{client: c, server: s, a: a, b: b}
	r.greet()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roads = append(m.roads, r)
	return r, nil
}

func (r *road) greet() {
	r.client.SendHello(wire.TunnelHello{})
	r.server.SendHello(wire.TunnelHello{})
}

// numbers is Config.Next of the client.
func (m *meet) numbers(_ wire.SessionID, kind wire.CarrierKind) (uint16, bool) {
	if kind != wire.CarrierTCP {
		return 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	return m.next, true
}

func (m *meet) at(n uint16) chan carrier.Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[n] == nil {
		m.waiting[n] = make(chan carrier.Conn, 1)
	}
	return m.waiting[n]
}

// dial is Config.More of the client.
func (m *meet) dial(ctx context.Context, _ wire.SessionID, n uint16, _ wire.CarrierKind) (carrier.Conn, Way, error) {
	r, err := m.road(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	m.at(n) <- r.server
	return r.client, theWay{}, nil
}

// take is Config.More of the server.
func (m *meet) take(ctx context.Context, _ wire.SessionID, n uint16, _ wire.CarrierKind) (carrier.Conn, Way, error) {
	select {
	case c := <-m.at(n):
		return c, theWay{}, nil
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

// theWay is the way of a carrier that nobody blames: by a relay, unless it is direct.
type theWay struct{ direct bool }

func (w theWay) String() string {
	if w.direct {
		return "direct"
	}
	return "relay"
}
func (theWay) Lost()          {}
func (w theWay) Direct() bool { return w.direct }

// handler is a Handler made from a function.
type handler func(ctx context.Context, open wire.Open) (net.Conn, error)

func (h handler) Open(ctx context.Context, _ From, open wire.Open) (net.Conn, error) {
	return h(ctx, open)
}

var refuseAll handler = func(context.Context, wire.Open) (net.Conn, error) {
	return nil, Refuse(wire.ReasonNotGranted, "nothing is granted here")
}

// pair is two tunnels that run against each other.
type pair struct {
	*meet
	t              testing.TB
	client, server *Tunnel
	clientErr      chan error
	serverErr      chan error
	stop           func() // ends both and waits
}

// newPair starts two tunnels over loopback TCP; change may alter their
// configurations. They are ended with the test.
func newPair(t testing.TB, exit Handler, change func(client, server *Config)) *pair {
	t.Helper()
	return newPairOver(t, exit, overTCP(t), change)
}

// newPairOver starts two tunnels whose carriers run over what pair returns.
func newPairOver(t testing.TB, exit Handler, over func() (client, server net.Conn), change func(client, server *Config)) *pair {
	t.Helper()
	p := newBarePair(t, exit, over, change)
	p.connect()
	return p
}

// newBarePair starts two tunnels without a carrier.
func newBarePair(t testing.TB, exit Handler, over func() (client, server net.Conn), change func(client, server *Config)) *pair {
	t.Helper()
	m := newMeet(t, over)
	log := slog.New(slog.DiscardHandler)
	client := Config{Client: true, Handler: refuseAll, Budget: NewBudget(1 << 30), Log: log, Next: m.numbers, More: m.dial}
	server := Config{Handler: exit, Budget: NewBudget(1 << 30), Log: log, Next: m.numbers, More: m.take}
	if change != nil {
		change(&client, &server)
	}
	p := &pair{meet: m, t: t, client: New(client), server: New(server), clientErr: make(chan error, 1), serverErr: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.clientErr <- p.client.Run(ctx) })
	running.Go(func() { p.serverErr <- p.server.Run(ctx) })
	p.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(p.stop)
	return p
}

// connect gives both tunnels one more TCP carrier.
func (p *pair) connect() *road {
	p.t.Helper()
	p.mu.Lock()
	n := p.next
	p.next++
	p.mu.Unlock()
	r, err := p.road(context.Background(), n)
	if err != nil {
		p.t.Fatal(err)
	}
	p.attach(r)
	return r
}

// connectDirect gives both tunnels a direct carrier of another session, over what over
// returns.
func (p *pair) connectDirect(over func() (client, server net.Conn)) *road {
	p.t.Helper()
	a, b := over()
	c, s, err := carriertest.OverTCP(context.Background(), a, b, p.meet.client, p.meet.server, wire.NewSessionID(), 0)
	if err != nil {
		p.t.Fatal(err)
	}
	r := &road{client: c, server: s, a: a, b: b}
	r.greet()
	p.attachBy(r, theWay{direct: true})
	return r
}

// connectQUIC gives both tunnels a QUIC carrier.
func (p *pair) connectQUIC() *road {
	p.t.Helper()
	c, s := carriertest.PairOf(p.t, wire.CarrierQUIC, p.session, 1000)
	r := &road{client: c, server: s}
	r.greet()
	p.attach(r)
	return r
}

func (p *pair) attach(r *road) {
	p.t.Helper()
	p.attachBy(r, theWay{})
}

func (p *pair) attachBy(r *road, way Way) {
	p.t.Helper()
	if err := errors.Join(p.client.Attach(r.client, way), p.server.Attach(r.server, way)); err != nil {
		p.t.Fatal(err)
	}
}

// alone takes from both tunnels the means to make carriers by themselves.
func alone(client, server *Config) {
	client.Next, client.More, server.Next, server.More = nil, nil, nil, nil
}

var benchGrant = wire.GrantID{1}

// dialTo is a Handler that dials one address, whatever the grant.
func dialTo(addr net.Addr) handler {
	return func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		Begun(ctx)
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

// service accepts connections and serves each with serve.
func service(t testing.TB, serve func(c *net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr()
}

// entry listens and opens a stream for each connection.
func entry(t testing.TB, tun *Tunnel) net.Addr {
	return service(t, func(c *net.TCPConn) {
		_, _ = tun.OpenStream(context.Background(), benchGrant, []byte("grant"), netip.AddrPort{}, c)
	})
}

func dial(t testing.TB, addr net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func echo(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, c) }
