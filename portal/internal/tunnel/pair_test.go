package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/portal/internal/path"
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

// relay joins the legs of carriers by number, as a relay does.
type relay struct {
	pair func() (client, server net.Conn)
	mu   sync.Mutex
	legs map[uint16]net.Conn // the server's side, until it dials
}

func newRelay(pair func() (client, server net.Conn)) *relay {
	return &relay{pair: pair, legs: make(map[uint16]net.Conn)}
}

func (r *relay) dial(_ context.Context, n uint16) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.legs[n]; c != nil {
		delete(r.legs, n)
		return c, nil
	}
	mine, other := r.pair()
	r.legs[n] = other
	return mine, nil
}

// dialFunc dials a leg for the carrier of that number.
type dialFunc func(ctx context.Context, n uint16) (net.Conn, error)

// over is Config.Ways with one way.
func over(dial dialFunc) func(uint16) ([]path.Way, time.Duration) {
	return func(n uint16) ([]path.Way, time.Duration) { return []path.Way{&theWay{dial, n}}, 0 }
}

// through has every connection that is dialled pass through change.
func through(ways func(uint16) ([]path.Way, time.Duration), change func(n uint16, c net.Conn) net.Conn) func(uint16) ([]path.Way, time.Duration) {
	return func(n uint16) ([]path.Way, time.Duration) {
		list, apart := ways(n)
		for i, w := range list {
			list[i] = &theWay{func(ctx context.Context, n uint16) (net.Conn, error) {
				c, err := w.Dial(ctx)
				if err != nil {
					return nil, err
				}
				return change(n, c), nil
			}, n}
		}
		return list, apart
	}
}

// theWay is the only way of a carrier.
type theWay struct {
	dial   dialFunc
	number uint16
}

func (w *theWay) String() string                             { return "relay" }
func (w *theWay) Dial(ctx context.Context) (net.Conn, error) { return w.dial(ctx, w.number) }
func (w *theWay) Taken()                                     {}
func (w *theWay) Lost()                                      {}

// handler is a Handler made from a function.
type handler func(ctx context.Context, open wire.Open) (net.Conn, error)

func (h handler) Open(ctx context.Context, _ *x509.Certificate, open wire.Open) (net.Conn, error) {
	return h(ctx, open)
}

var refuseAll handler = func(context.Context, wire.Open) (net.Conn, error) {
	return nil, Refuse(wire.ReasonNotGranted, "nothing is granted here")
}

// pair is two tunnels that run against each other.
type pair struct {
	client, server *Tunnel
	clientErr      chan error
	serverErr      chan error
	stop           func() // ends both and waits
}

// newPair starts two tunnels over loopback TCP; change may alter their
// configurations. They are ended with the test.
func newPair(t testing.TB, exit Handler, change func(client, server *Config)) *pair {
	t.Helper()
	r := newRelay(func() (net.Conn, net.Conn) { a, b := carriertest.TCP(t); return a, b })
	cc, sc := carriertest.TLS(t)
	session := wire.NewSessionID()
	client := Config{Client: true, Session: session, Ways: over(r.dial), TLS: cc, Handler: refuseAll, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)}
	server := Config{Session: session, Ways: over(r.dial), TLS: sc, Handler: exit, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&client, &server)
	}
	p := &pair{client: New(client), server: New(server), clientErr: make(chan error, 1), serverErr: make(chan error, 1)}
	p.start(t)
	for _, tun := range []*Tunnel{p.client, p.server} {
		select {
		case <-tun.Up():
		case <-tun.Done():
			t.Fatalf("the tunnel did not come up: %v", errors.Join(<-p.clientErr, <-p.serverErr))
		}
	}
	return p
}

// newPairOver starts two tunnels over one connection each, which need not come
// up.
func newPairOver(t testing.TB, exit Handler, client, server net.Conn) *pair {
	t.Helper()
	cc, sc := carriertest.TLS(t)
	session := wire.NewSessionID()
	to := func(c net.Conn) dialFunc {
		return func(_ context.Context, n uint16) (net.Conn, error) {
			if n > 0 {
				return nil, errors.New("there is one carrier")
			}
			return c, nil
		}
	}
	p := &pair{
		client:    New(Config{Client: true, Session: session, Ways: over(to(client)), TLS: cc, Handler: refuseAll, Log: slog.New(slog.DiscardHandler)}),
		server:    New(Config{Session: session, Ways: over(to(server)), TLS: sc, Handler: exit, Log: slog.New(slog.DiscardHandler)}),
		clientErr: make(chan error, 1), serverErr: make(chan error, 1),
	}
	p.start(t)
	return p
}

func (p *pair) start(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.clientErr <- p.client.Run(ctx) })
	running.Go(func() { p.serverErr <- p.server.Run(ctx) })
	p.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(p.stop)
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
