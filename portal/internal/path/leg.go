// Package path finds ways between two portals and gives their carriers
// connections over them. What exists is the way over a relay in splice mode:
// both portals dial the relay, prove their legs, and the relay joins the two.
//
// A Leg is one portal's way into one session. It is the seam for ways to come
// (packet mode, UDP, direct): a carrier sees nothing but a connection.
package path

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/eyeballs"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// prefaceTime bounds the sending of the 64 bytes that prove a leg.
const prefaceTime = 5 * time.Second

// Transports are the ways that this portal can use.
const Transports = wire.TransportSplice | wire.TransportTLS

// Finder makes Legs and remembers which mode works with which relay. It is
// safe for concurrent use.
type Finder struct {
	credentials *identity.Credentials
	log         *slog.Logger

	mu    sync.Mutex // guards the following
	works map[string]Mode
}

// NewFinder returns a Finder for the portal with these credentials.
func NewFinder(credentials *identity.Credentials, log *slog.Logger) *Finder {
	return &Finder{credentials: credentials, log: log, works: make(map[string]Mode)}
}

// Leg is this portal's way into one session. Its methods are safe for
// concurrent use.
type Leg struct {
	finder     *Finder
	session    wire.Session
	candidates []candidate
	used       atomic.Pointer[candidate] // of the last connection
}

// Leg returns the way into a session that the server at that address has
// announced. The error says why its relay is not dialled.
func (f *Finder) Leg(session wire.Session, server netip.Addr) (*Leg, error) {
	if err := checkAccess(session.Relay, server); err != nil {
		return nil, err
	}
	f.mu.Lock()
	first := f.works[session.Relay.Name]
	f.mu.Unlock()
	list := candidates(session.Relay, session.Transports&Transports, first)
	if len(list) == 0 {
		return nil, fmt.Errorf("relay %q offers no way that this portal can use", session.Relay.Name)
	}
	return &Leg{finder: f, session: session, candidates: list}, nil
}

// Dial returns a connection to the relay over which the leg is proven for the
// carrier of that number. What is written to it reaches the other portal once
// that has done the same.
func (l *Leg) Dial(ctx context.Context, connection uint16) (net.Conn, error) {
	conn, err := eyeballs.Race(ctx, l.candidates, l.connect)
	if err != nil {
		return nil, fmt.Errorf("dial relay %q: %w", l.session.Relay.Name, err)
	}
	// Only the connection that won proves the leg: a number is joined once.
	id := leg.ID{Session: l.session.ID, Leg: l.session.Leg, Connection: connection}
	conn.SetWriteDeadline(time.Now().Add(prefaceTime))
	if _, err := conn.Write(leg.NewPreface(id).AppendTo(nil, l.session.Secret)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove leg %v to relay %q: %w", id, l.session.Relay.Name, err)
	}
	conn.SetWriteDeadline(time.Time{})
	l.used.Store(&conn.candidate)
	l.finder.log.Debug("relay dialled", "relay", l.session.Relay.Name, "address", conn.candidate.addr.String(), "path", conn.candidate.mode.String(), "session", l.session.ID.String(), "connection", connection)
	return conn.Conn, nil
}

// dialed is a connection and how it was made.
type dialed struct {
	net.Conn
	candidate candidate
}

func (l *Leg) connect(ctx context.Context, c candidate) (*dialed, error) {
	// The carrier keeps the connection alive itself.
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", c.addr.String())
	if err != nil {
		return nil, err
	}
	if c.mode != SharedTLS {
		return &dialed{conn, c}, nil
	}
	relay := identity.Expect(identity.Relay, l.session.Relay.Name)
	secure := tls.Client(conn, l.finder.credentials.ClientTLS(identity.ProtocolRelay, relay))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove relay at %s: %w", c.addr, err)
	}
	return &dialed{secure, c}, nil
}

// Worked tells that a carrier came up over the leg: the next session at this
// relay begins with the same mode.
func (l *Leg) Worked() {
	if c := l.used.Load(); c != nil {
		l.finder.remember(l.session.Relay.Name, c.mode)
	}
}

// Failed tells that no carrier came up, though a connection may have: what is
// between here and the relay may let connections pass and not what they carry.
// The next session at this relay begins with the next mode.
func (l *Leg) Failed() {
	if c := l.used.Load(); c != nil {
		l.finder.remember(l.session.Relay.Name, (c.mode+1)%modes)
	}
}

func (f *Finder) remember(relay string, m Mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.works[relay] = m
}

// Relay returns the name of the relay.
func (l *Leg) Relay() string { return l.session.Relay.Name }

// Mode returns the way that the last connection took and the relay's address;
// none before the first.
func (l *Leg) Mode() (mode string, addr netip.AddrPort) {
	c := l.used.Load()
	if c == nil {
		return "", netip.AddrPort{}
	}
	return c.mode.String(), c.addr
}
