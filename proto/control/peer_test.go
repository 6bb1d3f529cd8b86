package control

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

type (
	portalConn = Conn[wire.ToPortal, wire.FromPortal]
	serverConn = Conn[wire.FromPortal, wire.ToPortal]
)

var discard = slog.New(slog.DiscardHandler)

// testNow is the time of all certificates, whatever the clock of a test says.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// authority issues credentials of example.org.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func sign(t testing.TB, template *x509.Certificate, by *authority) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = testNow.Add(-time.Hour), testNow.AddDate(0, 0, 30)
	if by == nil {
		by = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func newAuthority(t testing.TB) authority {
	return sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true}, nil)
}

func (a authority) issue(t testing.TB, role identity.Role, name string) *identity.Credentials {
	t.Helper()
	return a.issueTo(t, role, name, func() time.Time { return testNow })
}

// issueTo is issue for a holder with a clock of its own.
func (a authority) issueTo(t testing.TB, role identity.Role, name string, now func() time.Time) *identity.Credentials {
	t.Helper()
	id, err := identity.New("example.org", role, name)
	if err != nil {
		t.Fatal(err)
	}
	leaf := sign(t, &x509.Certificate{
		URIs:        []*url.URL{id.URL()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, &a)
	c, err := identity.NewCredentials([]*x509.Certificate{leaf.cert}, leaf.key, []*x509.Certificate{a.cert}, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func anyone(identity.Peer) error { return nil }

// roles are credentials of everybody a test needs.
type roles struct {
	portal, server *identity.Credentials
}

func newRoles(t testing.TB) roles {
	ca := newAuthority(t)
	return roles{ca.issue(t, identity.Portal, "p"), ca.issue(t, identity.Server, "s")}
}

func (r roles) serverTLS() *tls.Config { return r.server.ServerTLS(identity.ProtocolControl, anyone) }

func (r roles) dialer() *Dialer[wire.ToPortal, wire.FromPortal] {
	return &Dialer[wire.ToPortal, wire.FromPortal]{Credentials: r.portal, Software: "test/1", Parse: wire.ParseToPortal, Log: discard}
}

// tcpPipe is net.Pipe over loopback: it has buffers, and a peer can be gone.
func tcpPipe(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// ending is a running Conn: done is closed when Run has returned err.
type ending struct {
	done chan struct{}
	err  error
}

func (e *ending) wait() error {
	<-e.done
	return e.err
}

func run[In, Out wire.Message](ctx context.Context, c *Conn[In, Out], handle func(In) error) *ending {
	e := &ending{done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.err = c.Run(ctx, handle)
	}()
	return e
}

// script is the raw other side of a connection under test: it sends what it
// likes.
type script struct {
	t   testing.TB
	tls *tls.Conn
}

// serverAgainst returns a server's connection that runs, and the portal on the
// other side of it, greeted, as a script.
func serverAgainst(t testing.TB, r roles, portal, server net.Conn, handle func(wire.FromPortal) error) (*serverConn, *ending, script) {
	t.Helper()
	type accepted struct {
		conn *serverConn
		err  error
	}
	ready := make(chan accepted, 1)
	go func() {
		a, err := Accept(t.Context(), server, r.serverTLS())
		if err != nil {
			ready <- accepted{nil, err}
			return
		}
		ready <- accepted{WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion}, discard), nil}
	}()
	s := script{t, tls.Client(portal, r.portal.ClientTLS(identity.ProtocolControl, anyone))}
	s.send(wire.Hello{Version: wire.ControlVersion, Software: "script"})
	a := <-ready
	if a.err != nil {
		t.Fatal(a.err)
	}
	e := run(t.Context(), a.conn, handle)
	s.want(wire.TypeWelcome)
	return a.conn, e, s
}

// portalAgainst returns a portal's connection that runs, and the server on the
// other side of it as a script.
func portalAgainst(t testing.TB, r roles, portal, server net.Conn, handle func(wire.ToPortal) error) (*portalConn, *ending, script) {
	t.Helper()
	return portalOf(t, r, r.dialer(), portal, server, handle)
}

// portalOf is portalAgainst with a dialer of the test's.
func portalOf(t testing.TB, r roles, d *Dialer[wire.ToPortal, wire.FromPortal], portal, server net.Conn, handle func(wire.ToPortal) error) (*portalConn, *ending, script) {
	t.Helper()
	s := script{t, tls.Server(server, r.serverTLS())}
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		s.want(wire.TypeHello)
		s.send(wire.Welcome{Version: wire.ControlVersion})
	}()
	c, _, err := d.greet(t.Context(), portal)
	<-greeted
	if err != nil {
		t.Fatal(err)
	}
	return c, run(t.Context(), c, handle), s
}

func (s script) send(m wire.Message) {
	s.t.Helper()
	s.write(wire.AppendMessage(nil, m))
}

func (s script) write(b []byte) {
	s.t.Helper()
	if _, err := s.tls.Write(b); err != nil {
		s.t.Errorf("script writes: %v", err)
	}
}

// read returns the next message, or nil when the connection is over.
func (s script) read() (wire.Type, []byte) {
	var header [wire.ControlHeaderLen]byte
	if _, err := io.ReadFull(s.tls, header[:]); err != nil {
		return 0, nil
	}
	t, n, err := wire.ParseControlHeader(header[:])
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(s.tls, body); err != nil {
		return 0, nil
	}
	return t, body
}

func (s script) want(want wire.Type) []byte {
	s.t.Helper()
	got, body := s.read()
	if got != want {
		s.t.Errorf("script got a message of type %d, %q; want type %d", got, body, want)
	}
	return body
}

// wantGoodbye reads a Goodbye and then the end.
func (s script) wantGoodbye(reason wire.Reason) {
	s.t.Helper()
	m, err := wire.ParseGoodbye(s.want(wire.TypeGoodbye))
	if err != nil || m.Reason != reason {
		s.t.Errorf("script got Goodbye %v, %v; want %v", m, err, reason)
	}
	if t, body := s.read(); body != nil {
		s.t.Errorf("script got a message of type %d after Goodbye", t)
	}
}

// readUntilGoodbye skips all messages before a Goodbye.
func (s script) readUntilGoodbye() wire.Goodbye {
	for {
		t, body := s.read()
		if body == nil {
			return wire.Goodbye{}
		}
		if t == wire.TypeGoodbye {
			m, _ := wire.ParseGoodbye(body)
			return m
		}
	}
}

// nothing fails the test if a message is handed on.
func nothing[M wire.Message](t testing.TB) func(M) error {
	return func(m M) error {
		t.Errorf("handed on: %#v", m)
		return nil
	}
}

func isGoodbye(err error, reason wire.Reason) bool {
	var bye *Goodbye
	return errors.As(err, &bye) && bye.Reason == reason
}
