package control

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

// script is a server whose every word the test says, with one portal.
type script struct {
	*testing.T
	client  *Client
	keeper  *grants.Keeper
	self    grant.Party
	policy  ed25519.PrivateKey
	asked   chan wire.FromPortal
	changes chan grants.Change
	events  chan string  // what Sessions was told of sessions
	told    chan bool    // and of the connection
	kept    atomic.Int64 // how often something changed
	trips   sync.Map     // round trips by relay
	lose    atomic.Bool  // nothing that the server writes on this connection arrives

	server   *identity.Credentials
	listener net.Listener     // over TCP
	conns    chan *serverConn // as they come
	conn     *serverConn      // of now
}

type serverConn = wirecontrol.Conn[wire.FromPortal, wire.ToPortal]

// seenAt is where the script's server sees the portal.
var seenAt = netip.MustParseAddr("203.0.113.7")

func newScript(t *testing.T) *script { return newScriptBy(t, nil) }

// newScriptBy returns a script whose portal reaches the server through a proxy, if by is not
// nil: it is given the server's address.
func newScriptBy(t *testing.T, by func(server string) *proxy.Settings) *script {
	s := &script{
		T: t, asked: make(chan wire.FromPortal, 16), changes: make(chan grants.Change, 16), events: make(chan string, 16), told: make(chan bool, 16),
		conns: make(chan *serverConn, 4), policy: ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize)),
	}
	ca := identitytest.New(t)
	s.server = ca.Credentials(identity.Server, "server")
	policy := s.policy.Public().(ed25519.PublicKey)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := ca.Enrol(identity.Portal, "ann")
	in := func(name string) string { return filepath.Join(dir, name) }
	keep, err := keeper.Open(keeper.Config{
		Role: identity.Portal, Certificate: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem"), State: in("state"), Policy: policy, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	own := keep.Credentials()
	s.self = grant.Party{Name: "ann", Key: own.Key()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listener = l
	var running sync.WaitGroup
	running.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(raw) })
		}
	})
	s.keeper = grants.NewKeeper(grants.NewSet(identity.Peer{ID: own.ID, Key: own.Key()}, policy), time.Now, func(c grants.Change) { s.changes <- c })
	servers, through := []string{l.Addr().String()}, (*proxy.Settings)(nil)
	if by != nil {
		through, servers = by(servers[0]), []string{"server.invalid:443"}
	}
	s.client = New(Config{
		Credentials: own, Identity: keep, Software: "test", Servers: servers, Proxy: through, Grants: s.keeper,
		Measure: s.measure, Changed: func() { s.kept.Add(1) }, Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { s.client.Run(ctx, s) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	s.connected()
	return s
}

// connected waits for the next connection, until both sides know of it.
func (s *script) connected() {
	s.Helper()
	s.conn = <-s.conns
	for !<-s.told {
	}
	if !s.client.Status().Connected {
		s.Error("it was told of a connection that there is not")
	}
}

// lossy is a connection that goes dead without a word.
type lossy struct {
	net.Conn
	lose *atomic.Bool // the next write is lost, and all that follow
	lost bool
}

func (c *lossy) Write(b []byte) (int, error) {
	if c.lost = c.lost || c.lose.Swap(false); c.lost {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (s *script) tls() *tls.Config {
	return s.server.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Portal, "ann"))
}

func (s *script) serve(raw net.Conn) {
	defer raw.Close()
	raw = &lossy{Conn: raw, lose: &s.lose}
	if a, err := wirecontrol.Accept(context.Background(), raw, s.tls()); err == nil {
		s.welcome(a)
	}
}

// welcome serves a portal that has said Hello.
func (s *script) welcome(a *wirecontrol.Accepted) {
	stamp := s.policy.Public().(ed25519.PublicKey) // one key for both
	conn := wirecontrol.WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion, Time: uint64(time.Now().Unix()), Stamp: []ed25519.PublicKey{stamp}, Seen: seenAt}, slog.New(slog.NewTextHandler(s.Output(), nil)))
	s.conns <- conn
	conn.Run(context.Background(), func(m wire.FromPortal) error {
		if _, held := m.(wire.RevocationsHeld); !held { // as each connection begins
			s.asked <- m
		}
		return nil
	})
}

// measure returns what the test says.
func (s *script) measure(_ context.Context, relay wire.RelayPlace, _ netip.Addr) (time.Duration, error) {
	if d, ok := s.trips.Load(relay.Name); ok {
		return d.(time.Duration), nil
	}
	return 0, errors.New("no answer")
}

// settled waits until the client has taken all that was sent.
func (s *script) settled() {
	s.Helper()
	m, answer := s.open(s.Context())
	s.conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonBusy})
	answer()
}

// give puts a grant that joins the portal with a peer, and returns it.
func (s *script) give(peer string) grant.Grant {
	p := grant.Permission{
		Version: 1, Forward: "to-" + peer, Entry: s.self, Listen: endpoint.MustParse("tcp://127.0.0.1:1"),
		Exit: grant.Party{Name: peer, Key: identity.KeyHash{1}}, Target: endpoint.MustParse("tcp://10.0.0.5:80"),
	}
	g := grant.Sign(p, s.policy).Stamp(s.policy, time.Now())
	s.conn.Send(wire.PutGrant{Grant: g.AppendTo(nil)})
	return g
}

// Connected implements Sessions, and so do the next three.
func (s *script) Connected(is bool) { s.told <- is }

func (s *script) PeerChanged(name string) { s.events <- "changed " + name }

func (s *script) Accept(m wire.Session) { s.events <- "accept " + m.Peer }

func (s *script) Ended(_ wire.SessionID, r wire.Reason) { s.events <- "ended " + r.String() }

// open asks for a session and returns the server's side of it.
func (s *script) open(ctx context.Context) (wire.OpenSession, func() (wire.Session, error)) {
	s.Helper()
	type result struct {
		session wire.Session
		err     error
	}
	done := make(chan result, 1)
	go func() {
		session, err := s.client.OpenSession(ctx, "factory", wire.GrantID{7}, wire.TransportSplice, "relay-0")
		done <- result{session, err}
	}()
	m, ok := (<-s.asked).(wire.OpenSession)
	if !ok || m.Peer != "factory" || m.Grant != (wire.GrantID{7}) || m.Lost != "relay-0" {
		s.Fatalf("asked %+v", m)
	}
	return m, func() (wire.Session, error) {
		r := <-done
		return r.session, r.err
	}
}

func session(request uint32, peer string) wire.Session {
	return wire.Session{
		Request: request, ID: wire.NewSessionID(), Lifetime: 60, Secret: wire.NewSecret(), Peer: peer,
		Relay: wire.RelayAccess{Name: "relay-1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, TCP: 20000},
	}
}

func (s *script) wantRefused(err error, want wire.Reason) {
	s.Helper()
	var r *Refused
	if !errors.As(err, &r) || r.Reason != want {
		s.Errorf("got %v, want refused: %v", err, want)
	}
}

func TestRequestsGetTheirAnswers(t *testing.T) {
	s := newScript(t)
	m, answer := s.open(t.Context())
	s.conn.Send(session(m.Request, "factory"))
	if got, err := answer(); err != nil || got.Peer != "factory" {
		t.Errorf("session %+v, %v", got, err)
	}
	if got := <-s.events; got != "accept factory" {
		t.Errorf("Sessions was told %q", got)
	}
	m, answer = s.open(t.Context())
	s.conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonPeerOffline, Text: "it sleeps"})
	_, err := answer()
	s.wantRefused(err, wire.ReasonPeerOffline)

	m, answer = s.open(t.Context())
	s.conn.Send(session(m.Request, "mallory"))
	_, err = answer()
	s.wantRefused(err, wire.ReasonWrongPeer)
}

func TestLateAnswersHurtNobody(t *testing.T) {
	s := newScript(t)
	ctx, cancel := context.WithCancel(t.Context())
	m, answer := s.open(ctx)
	cancel()
	if _, err := answer(); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	s.conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonBusy})
	s.conn.Send(wire.Refused{Request: 999, Reason: wire.ReasonBusy})
	s.conn.Send(session(m.Request, "factory"))
	s.conn.Send(wire.SessionEnded{Reason: wire.ReasonReplaced})
	for _, want := range []string{"accept factory", "ended replaced by a newer connection"} {
		if got := <-s.events; got != want {
			t.Errorf("Sessions was told %q, want %q", got, want)
		}
	}
}

func TestLostServerEndsRequestsAndIsFoundAgain(t *testing.T) {
	s := newScript(t)
	s.conn.Send(wire.PeerState{Name: "factory", Online: true})
	m, answer := s.open(t.Context()) // behind the state, so that is known
	s.conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonBusy})
	answer()
	if online, known := s.client.Online("factory"); !online || !known {
		t.Errorf("online %t, known %t", online, known)
	}
	_, answer = s.open(t.Context())
	s.conn.Close(wire.ReasonShutdown, "")
	_, err := answer()
	s.wantRefused(err, wire.ReasonServerGone)
	if _, known := s.client.Online("factory"); known {
		t.Error("claims to know who is connected to a server that is gone")
	}
	_, err = s.client.OpenSession(t.Context(), "factory", wire.GrantID{7}, 0, "")
	s.wantRefused(err, wire.ReasonServerGone)
	if at := s.client.Server(); !at.Addr().IsLoopback() {
		t.Errorf("forgot where the server was: %v", at)
	}
	if at := s.client.Seen(); at != seenAt {
		t.Errorf("the server has seen this portal at %v, want %v", at, seenAt)
	}
	s.connected()
	m, answer = s.open(t.Context())
	s.conn.Send(session(m.Request, "factory"))
	if _, err := answer(); err != nil {
		t.Errorf("after the server came back: %v", err)
	}
}

// A way to the server that breaks again and again is not a server that is down:
// who waits for an answer does not wait for pauses that grow.
func TestServerIsDialledAtOnceWhenItIsLostUnderARequest(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	broken := errors.New("the way is another now")
	for range 3 { // the next pause is of 2 s at least
		s.conn.Abort(broken)
		s.connected()
	}
	_, answer := s.open(t.Context())
	begin := time.Now()
	s.conn.Abort(broken)
	_, err := answer()
	s.wantRefused(err, wire.ReasonServerGone)
	s.connected()
	if took := time.Since(begin); took > time.Second {
		t.Errorf("connected again after %v, want a moment", took)
	}
}

// The way changes twice: what is dialled after the first change hears nothing after
// the second, and is not waited for.
func TestServerIsDialledAnewWhenTheWayChangesUnderTheDial(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.lose.Store(true) // of the next connection
	s.conn.Abort(errors.New("the way is another now"))
	for s.lose.Load() { // until the server has answered, and in vain
		runtime.Gosched()
	}
	begin := time.Now()
	s.client.Check()
	s.connected()
	if took := time.Since(begin); took > wirecontrol.HandshakeTimeout/4 {
		t.Errorf("connected again after %v, want a moment", took)
	}
}

// What a peer does at the server may be news of the tunnel with it; that it is
// there in the first place is none.
func TestChangesOfPeersAreTold(t *testing.T) {
	s := newScript(t)
	for _, online := range []bool{true, true, false, false, true} {
		s.conn.Send(wire.PeerState{Name: "factory", Online: online})
	}
	s.settled()
	for range 2 {
		if got := <-s.events; got != "changed factory" {
			t.Errorf("told %q", got)
		}
	}
	select {
	case got := <-s.events:
		t.Errorf("told %q as well", got)
	default:
	}
}

func TestBadGrantOfTheServerClosesNothing(t *testing.T) {
	s := newScript(t)
	s.conn.Send(wire.PutGrant{Grant: []byte("no grant")})
	g := s.give("factory")
	forged := slices.Clone(g.AppendTo(nil))
	forged[len(forged)-1] ^= 1
	s.conn.Send(wire.PutGrant{Grant: forged})
	s.conn.Send(wire.GrantsComplete{Version: 1}.Sign(s.policy))
	if c := <-s.changes; c.Kind != grants.Begin || c.Grant.ID() != g.ID() {
		t.Errorf("change %d of %q", c.Kind, c.Grant.Forward)
	}
	s.conn.Send(wire.RemoveGrant{Grant: g.ID(), Reason: wire.ReasonGrantRemoved})
	s.conn.Send(wire.GrantsComplete{Version: 2}.Sign(s.policy))
	if c := <-s.changes; c.Kind != grants.End || c.Reason != wire.ReasonGrantRemoved {
		t.Errorf("change %d, %v", c.Kind, c.Reason)
	}
}
