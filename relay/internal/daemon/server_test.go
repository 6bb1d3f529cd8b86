package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/relay/internal/config"
)

// server is a scripted server with one relay, the one under test.
type server struct {
	t        *testing.T
	cfg      config.Config
	listener *net.TCPListener
	id       *identity.Credentials
	cancel   func()       // as SIGTERM does
	stop     func() error // and waits

	conn     *control.Conn[wire.FromRelay, wire.ToRelay]
	cut      context.CancelFunc
	received chan wire.FromRelay
	done     chan struct{}
}

// newServer starts a relay with session ports of its own and waits for its
// connection.
func newServer(t *testing.T, tune func(*config.Config)) *server {
	ca := identitytest.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	first, last := ownPorts(t)
	dir := ca.Enrol(identity.Relay, "relay-1")
	s := &server{t: t, listener: l.(*net.TCPListener), id: ca.Credentials(identity.Server, "server")}
	s.cfg = config.Config{
		Servers:     []string{l.Addr().String()},
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
		State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "relay.sock"), Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		First: first, Last: last, AllowLoopback: true, Capacity: 100, SessionsPerPortal: 3, Mode: config.ModeUserSpace,
		TicketKeys: filepath.Join(dir, "tickets.key"),
	}
	tune(&s.cfg)
	s.start()
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if s.conn != nil {
			s.hangUp()
		}
	})
	s.accept()
	return s
}

// patience bounds every wait: so long nothing takes on any machine.
const patience = 20 * time.Second

// ownPorts returns a range of ports that no other test has, of whatever process, until this one is over: who has a range
// listens at the port before it. None is one that the system gives to connections, or that tests of the relay's parts use.
func ownPorts(t *testing.T) (first, last uint16) {
	t.Helper()
	const lowest, size, ranges = 2000, 1200, 15
	begin := rand.IntN(ranges)
	for i := range ranges {
		sign := lowest + (begin+i)%ranges*size
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(sign))); err == nil {
			t.Cleanup(func() { l.Close() })
			return uint16(sign + 1), uint16(sign + size - 1)
		}
	}
	t.Fatalf("other tests have all %d ranges of ports", ranges)
	return 0, 0
}

// ownPort takes one of the relay's session ports for another use.
func ownPort(c *config.Config) uint16 {
	c.First++
	return c.First - 1
}

// start starts the relay, which is to connect.
func (s *server) start() {
	s.t.Helper()
	d := New(s.cfg, slog.New(slog.DiscardHandler), func(privilege.Set) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	s.cancel = cancel
	s.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("the relay runs %v after it was stopped", patience)
		}
	})
}

// accept takes the relay's next connection.
func (s *server) accept() {
	s.t.Helper()
	s.listener.SetDeadline(time.Now().Add(patience))
	raw, err := s.listener.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, enough := context.WithTimeout(s.t.Context(), patience)
	defer enough()
	log := slog.New(slog.DiscardHandler)
	a, err := control.Accept(ctx, raw, s.id.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Relay, "relay-1")))
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = control.WelcomeRelay(a, wire.Welcome{Version: wire.ControlVersion, Time: uint64(time.Now().Unix())}, log)
	running, cut := context.WithCancel(context.Background())
	received, done := make(chan wire.FromRelay, 1000), make(chan struct{})
	s.cut, s.received, s.done = cut, received, done
	conn := s.conn
	go func() {
		defer close(done)
		defer close(received)
		conn.Run(running, func(m wire.FromRelay) error {
			if _, held := m.(wire.RevocationsHeld); !held { // as each connection begins
				received <- m
			}
			return nil
		})
	}()
}

// hangUp ends the connection and waits until it has ended.
func (s *server) hangUp() {
	s.cut()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Errorf("the connection goes on %v after it was ended", patience)
	}
}

func (s *server) send(m wire.ToRelay) { s.conn.Send(m) }

// next returns the next message that is no report of the load.
func (s *server) next(what string) wire.FromRelay {
	s.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case m, ok := <-s.received:
			if !ok {
				s.t.Fatalf("%s: the connection has ended", what)
			}
			if _, load := m.(wire.RelayLoad); !load {
				return m
			}
		case <-timeout.C:
			s.t.Fatalf("%s: nothing came", what)
		}
	}
}

func (s *server) want(what string, want wire.FromRelay) {
	s.t.Helper()
	// A slow machine makes sessions older.
	if diff := cmp.Diff(want, s.next(what), cmpopts.IgnoreFields(wire.HeldSession{}, "Age")); diff != "" {
		s.t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// wantReady waits for what the relay offers and the sessions it still holds.
func (s *server) wantReady(held ...wire.CreateSession) {
	s.t.Helper()
	var sessions []wire.HeldSession
	for _, m := range held {
		sessions = append(sessions, wire.HeldSession{ID: m.ID, Portals: [2]string{m.Legs[0].Portal, m.Legs[1].Portal}, Transports: m.Transports &^ wire.TransportTLS})
	}
	transports := wire.TransportSplice | wire.TransportUDP
	if s.cfg.SharedTCP != 0 {
		transports |= wire.TransportTLS
	}
	s.want("what the relay offers", wire.RelayReady{
		First: s.cfg.First, Last: s.cfg.Last, SharedTCP: s.cfg.SharedTCP, SharedUDP: s.cfg.SharedUDP,
		Capacity: 100, Transports: transports, Sessions: sessions,
	})
}

func order(opener, peer string) wire.CreateSession {
	return wire.CreateSession{
		ID: wire.NewSessionID(), Lifetime: 60, Transports: wire.TransportSplice | wire.TransportUDP | wire.TransportTLS,
		Legs: [2]wire.Leg{{Portal: opener, Secret: wire.NewSecret()}, {Portal: peer, Secret: wire.NewSecret()}},
	}
}

// create asks for a session and returns where it waits.
func (s *server) create(m wire.CreateSession) wire.SessionReady {
	s.t.Helper()
	s.send(m)
	ready, ok := s.next("session").(wire.SessionReady)
	if !ok || ready.ID != m.ID {
		s.t.Fatalf("got %+v, want the session to be ready", ready)
	}
	return ready
}

func (s *server) wantRefused(m wire.CreateSession, reason wire.Reason) {
	s.t.Helper()
	s.send(m)
	if got, ok := s.next("refusal").(wire.SessionRefused); !ok || got.ID != m.ID || got.Reason != reason || got.Text == "" {
		s.t.Fatalf("got %+v, want a refusal because of %v", got, reason)
	}
}

// legs dials both legs of connection 0 at a port.
func legs(t *testing.T, m wire.CreateSession, port uint16) (a, b net.Conn) {
	t.Helper()
	var c [2]net.Conn
	for n := range c {
		var err error
		if c[n], err = net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c[n].Close() })
		c[n].SetDeadline(time.Now().Add(patience))
		id := leg.ID{Session: m.ID, Leg: uint8(n)}
		if _, err := c[n].Write(leg.NewPreface(id).AppendTo(nil, m.Legs[n].Secret)); err != nil {
			t.Fatal(err)
		}
	}
	return c[0], c[1]
}

func carry(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

func defaults(*config.Config) {}

func (s *server) status() Status {
	s.t.Helper()
	var v Status
	if err := local.Call(s.t.Context(), s.cfg.Socket, "status", nil, &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}
