package path

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// authority makes the identities and the relays of a test.
type authority struct {
	*testing.T
	*identitytest.Authority
}

func newAuthority(t *testing.T) *authority { return &authority{t, identitytest.New(t)} }

// finder returns a portal's Finder, which runs until the test is over.
func (a *authority) finder(name string) *Finder {
	a.Helper()
	f := NewFinder(Config{Credentials: a.Credentials(identity.Portal, name), Log: slog.New(slog.DiscardHandler)})
	a.run(f)
	return f
}

func (a *authority) run(f *Finder) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	a.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			a.Error(err)
		}
	})
}

// relay takes prefaces at a port, in clear or in TLS, and passes on what
// proves.
type relay struct {
	port    uint16
	proved  chan leg.Preface
	serving sync.WaitGroup
}

func (a *authority) relay(secret wire.Secret, secure *tls.Config) *relay {
	a.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.Fatal(err)
	}
	r := &relay{port: l.Addr().(*net.TCPAddr).AddrPort().Port(), proved: make(chan leg.Preface, 4)}
	serve := func(conn net.Conn) {
		defer conn.Close()
		if secure != nil {
			conn = tls.Server(conn, secure)
		}
		b := make([]byte, leg.PrefaceLen)
		if _, err := io.ReadFull(conn, b); err != nil {
			return // another connection won, or a certificate was refused
		}
		p, err := leg.ParsePreface(b)
		if err != nil || !p.ProvenBy(secret) {
			a.Errorf("preface %x: %v", b, err)
		}
		r.proved <- p
	}
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.serving.Go(func() { serve(conn) })
		}
	})
	a.Cleanup(func() {
		l.Close()
		r.serving.Wait()
	})
	return r
}

// closedPort returns a port at which nobody listens.
func (a *authority) closedPort() uint16 {
	a.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (a *authority) session(secret wire.Secret, tcp, shared uint16) wire.Session {
	return wire.Session{
		ID: wire.NewSessionID(), Leg: 1, Secret: secret, Peer: "factory", Transports: Transports,
		Relay: wire.RelayAccess{Name: "relay-1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TCP: tcp, SharedTCP: shared},
	}
}

// dialSplice dials the session's leg in splice mode, for a carrier that takes it, and
// checks how it went.
func (a *authority) dialSplice(l *Leg, session wire.Session, r *relay, connection uint16, mode string) {
	a.Helper()
	w := spliceOf(l, connection)
	conn, err := w.Dial(a.Context())
	if err != nil {
		a.Fatal(err)
	}
	defer conn.Close()
	w.Taken()
	if got, want := (<-r.proved).ID, (leg.ID{Session: session.ID, Leg: 1, Connection: connection}); got != want {
		a.Errorf("proved leg %v, want %v", got, want)
	}
	if got, _ := l.Mode(); got != mode {
		a.Errorf("path %q, want %q", got, mode)
	}
}

// spliceOf returns the way of a carrier that is splice mode.
func spliceOf(l *Leg, connection uint16) StreamWay {
	ways, _ := l.Ways(connection)
	return ways[slices.IndexFunc(ways, func(w Way) bool { return w.String() == "relay" })].(StreamWay)
}

func TestLegIsProvenByWhicheverWayThereIs(t *testing.T) {
	a := newAuthority(t)
	secret := wire.NewSecret()
	f := a.finder("ann")
	secure := a.Credentials(identity.Relay, "relay-1").ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, ""))
	clear, inTLS := a.relay(secret, nil), a.relay(secret, secure)
	for _, c := range []struct {
		tcp, shared uint16
		transports  wire.Transports
		relay       *relay
		mode        string
	}{
		{clear.port, a.closedPort(), Transports, clear, "relay"},
		{a.closedPort(), clear.port, Transports, clear, "relay-shared"},
		{0, clear.port, Transports, clear, "relay-shared"},
		{a.closedPort(), inTLS.port, wire.TransportTLS, inTLS, "relay-tls"},
	} {
		session := a.session(secret, c.tcp, c.shared)
		session.Transports = c.transports
		l, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		a.dialSplice(l, session, c.relay, 0, c.mode)
		a.dialSplice(l, session, c.relay, 7, c.mode)
	}
}

// TestSessionPortsAreTriedAgain: where they were shut once, sessions begin with the shared port, for an hour; and a relay
// that has no others says nothing of other relays.
func TestSessionPortsAreTriedAgain(t *testing.T) {
	a := newAuthority(t)
	secret := wire.NewSecret()
	f := a.finder("ann")
	own, shared := a.relay(secret, nil), a.relay(secret, nil)
	goes := func(tcp uint16, by *relay, mode string) {
		t.Helper()
		session := a.session(secret, tcp, shared.port)
		l, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a.dialSplice(l, session, by, 0, mode)
	}
	goes(0, shared, "relay-shared") // as that of a ticket
	goes(own.port, own, "relay")
	goes(a.closedPort(), shared, "relay-shared")
	goes(own.port, shared, "relay-shared")
	f.memory.mu.Lock()
	for topic, fact := range f.memory.facts {
		fact.until = fact.until.Add(-sharedTime)
		f.memory.facts[topic] = fact
	}
	f.memory.mu.Unlock()
	goes(own.port, own, "relay")
}

func TestRelayInTLSMustBeTheOneNamed(t *testing.T) {
	a := newAuthority(t)
	secret := wire.NewSecret()
	f := a.finder("ann")
	for role, name := range map[identity.Role]string{identity.Relay: "relay-2", identity.Server: "relay-1"} {
		other := a.Credentials(role, name).ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, ""))
		session := a.session(secret, 0, a.relay(secret, other).port)
		session.Transports = wire.TransportTLS
		l, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := spliceOf(l, 0).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "prove relay") {
			t.Errorf("%s %s: %v, %v; want a refusal", role, name, conn, err)
		}
	}
}

// The resort of splice mode goes by a mode that is not the one that has connected:
// by TLS, if there is that. It is remembered when a carrier has come up on it.
func TestResortGoesByAnotherMode(t *testing.T) {
	a := newAuthority(t)
	secret := wire.NewSecret()
	f := a.finder("ann")
	secure := a.Credentials(identity.Relay, "relay-1").ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, ""))
	r, inTLS := a.relay(secret, nil), a.relay(secret, secure)
	dial := func(session wire.Session) (splice, resort Way, err error) {
		t.Helper()
		l, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		ways, _ := l.Ways(0)
		if len(ways) != 2 {
			t.Fatalf("ways %v", ways)
		}
		for _, w := range ways {
			var conn net.Conn
			if conn, err = w.(StreamWay).Dial(t.Context()); err == nil {
				defer conn.Close()
			}
		}
		return ways[0], ways[1], err
	}
	session := a.session(secret, r.port, inTLS.port)
	splice, resort, err := dial(session)
	if err != nil || splice.String() != "relay" || resort.String() != "relay-tls" {
		t.Fatalf("%v, then %v: %v", splice, resort, err)
	}
	for _, want := range []uint16{0, leg.Meeting} {
		proved := r.proved
		if want == leg.Meeting {
			proved = inTLS.proved
		}
		if got := (<-proved).ID.Connection; got != want {
			t.Errorf("proved connection %d, want %d", got, want)
		}
	}
	resort.Taken()
	if splice, resort, err = dial(session); err != nil || splice.String() != "relay-tls" || resort.String() != "relay-shared" {
		t.Errorf("the next time: %v, then %v: %v", splice, resort, err)
	}
	session = a.session(secret, a.closedPort(), a.closedPort())
	if _, resort, err = dial(session); err == nil || !strings.Contains(err.Error(), "none has connected") {
		t.Errorf("a relay that does not listen: %v, %v", resort, err)
	}
	session = a.session(secret, r.port, 0)
	l, err := f.Leg(session, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if ways, _ := l.Ways(0); len(ways) != 1 {
		t.Errorf("a relay with one mode: %v", ways)
	}
}

func TestMeetingsOfALegHaveCountersThatRise(t *testing.T) {
	a := newAuthority(t)
	secret := wire.NewSecret()
	r := a.relay(secret, nil)
	session := a.session(secret, 0, r.port)
	l, err := a.finder("ann").Ticket(wire.Ticket{
		Session: session.ID, Leg: session.Leg, Secret: secret, Peer: session.Peer, Relay: session.Relay, Transports: Transports,
	}, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	last := uint64(time.Now().Add(-time.Minute).UnixMilli())
	for range 5 {
		ways, _ := l.Again()
		conn, err := ways[0].(StreamWay).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		p := <-r.proved
		if want := (leg.ID{Session: session.ID, Leg: 1, Connection: leg.Meeting}); p.ID != want || p.Counter() <= last {
			t.Errorf("proved leg %v with counter %d, want %v and more than %d", p.ID, p.Counter(), want, last)
		}
		last = p.Counter()
	}
}
