package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// configs returns TLS configurations of two portals that trust each other and
// nobody else.
func configs(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	pool := x509.NewCertPool()
	leaf := func(name string) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(parsed)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}
	}
	client = &tls.Config{Certificates: []tls.Certificate{leaf("client")}, RootCAs: pool, ServerName: "server"}
	server = &tls.Config{Certificates: []tls.Certificate{leaf("server")}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	return client, server
}

// loopback returns the two ends of a TCP connection over loopback.
func loopback() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Accept()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), s.(*net.TCPConn), nil
}

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	a, b, err := loopback()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

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
	r := newRelay(func() (net.Conn, net.Conn) { a, b := tcpPair(t); return a, b })
	cc, sc := configs(t)
	session := wire.NewSessionID()
	client := Config{Client: true, Session: session, Dial: r.dial, TLS: cc, Handler: refuseAll, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)}
	server := Config{Session: session, Dial: r.dial, TLS: sc, Handler: exit, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)}
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
	cc, sc := configs(t)
	session := wire.NewSessionID()
	to := func(c net.Conn) func(context.Context, uint16) (net.Conn, error) {
		return func(_ context.Context, n uint16) (net.Conn, error) {
			if n > 0 {
				return nil, errors.New("there is one carrier")
			}
			return c, nil
		}
	}
	p := &pair{
		client:    New(Config{Client: true, Session: session, Dial: to(client), TLS: cc, Handler: refuseAll, Log: slog.New(slog.DiscardHandler)}),
		server:    New(Config{Session: session, Dial: to(server), TLS: sc, Handler: exit, Log: slog.New(slog.DiscardHandler)}),
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
