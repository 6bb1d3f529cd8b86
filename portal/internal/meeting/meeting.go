package meeting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

const (
	// joinTime bounds everything from the dial of a carrier to its HELLO.
	joinTime = 10 * time.Second
	// maxConnections bounds the connection numbers of a session.
	maxConnections = 1024
)

// Leg is this portal's way into a session; *path.Leg is one.
type Leg interface {
	// Ways returns the ways for the first carrier of that number, at least
	// one, in the order in which to try them, and when to begin with each
	// (eyeballs.RaceAt).
	Ways(connection uint16) (ways []path.Way, at []time.Duration)
	// Again returns the ways on which both portals may meet without having
	// agreed on a number.
	Again() (ways []path.Way, at []time.Duration)
	// Of returns the ways for a further carrier of one kind; none if the
	// session has none.
	Of(connection uint16, kind wire.CarrierKind) (ways []path.Way, at []time.Duration)
}

// Tunnels is what a meeting asks about the tunnels with its peer. It is safe
// for concurrent use.
type Tunnels interface {
	// Named returns the tunnel that this portal names in its HELLO; false:
	// none.
	Named() (tunnel.Identity, bool)
	// Known returns the tunnel of that id, unless it is over.
	Known(id wire.TunnelID) (tunnel.Identity, bool)
	// Doubt ends the tunnels that have no carrier on which the peer answers:
	// it does not know what this portal has. It returns when that is
	// clear, after 2 seconds at the latest, or with ctx.
	Doubt(ctx context.Context)
}

// Config is what a Meeting is made from.
type Config struct {
	Session wire.Session
	Leg     Leg
	// TLS verifies the peer (VerifyConnection) and holds this portal's
	// certificate; it is that of the session's side, client or server.
	TLS     *tls.Config
	Tunnels Tunnels
	// Again has numbers of carriers come around, as no relay remembers those that were used. The
	// session lasts as long as its tunnel, which may be years.
	Again bool
	// Refused, if not nil, is called when nothing listens where the relay should
	// be.
	Refused func()
	Log     *slog.Logger
}

// Meeting is one session. Its methods are safe for concurrent use.
type Meeting struct {
	Config
	client bool

	mu   sync.Mutex      // guards the following
	last uint16          // number that was announced last, on the TLS client's side
	used map[uint16]bool // numbers that were announced and are not free again, on the server's side
}

// New returns a Meeting.
func New(cfg Config) *Meeting { return &Meeting{Config: cfg, client: cfg.Session.Leg == 0} }

// Met is a carrier with the peer proven and its HELLO right, or, on the TLS
// client's side of a new tunnel and of Join and More, not yet read: the latter carriers end
// when that is wrong. Way was told that it was taken.
type Met struct {
	Conn   carrier.Conn
	Way    path.Way
	Tunnel tunnel.Identity
	New    bool // the carrier is the first of that tunnel
}

// First makes carrier 0, which both portals begin with on the Session message.
func (m *Meeting) First(ctx context.Context) (Met, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, joinTime, errSlow)
	defer cancel()
	ways, at := m.Leg.Ways(0)
	return m.meet(ctx, attempt{connection: 0, ways: ways, at: at})
}

// Again makes a carrier without an agreed number. It succeeds when the peer
// does the same, before ctx ends.
func (m *Meeting) Again(ctx context.Context) (Met, error) {
	ways, at := m.Leg.Again()
	return m.meet(ctx, attempt{connection: leg.Meeting, ways: ways, at: at})
}

// Join is Again for a carrier that may belong to one tunnel only.
func (m *Meeting) Join(ctx context.Context, of tunnel.Identity) (Met, error) {
	ways, at := m.Leg.Again()
	return m.meet(ctx, attempt{connection: leg.Meeting, ways: ways, at: at, of: &of})
}

// ErrNoWay is returned where a session has no way of the kind that is wanted.
var ErrNoWay = errors.New("the session has no such way")

var errSlow = fmt.Errorf("no carrier came up within %v", joinTime)

// Next returns the number of a further carrier of that kind for the TLS client
// to announce; false: the session is not this side's to extend, has no such
// way, or has had all its numbers.
func (m *Meeting) Next(kind wire.CarrierKind) (connection uint16, ok bool) {
	ways, _ := m.Leg.Of(1, kind) // any number
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Config.Again && m.last+1 >= maxConnections {
		m.last = 0
	}
	if len(ways) == 0 || !m.client || m.last+1 >= maxConnections {
		return 0, false
	}
	m.last++
	return m.last, true
}

// More makes a further carrier of a tunnel, which the TLS client has announced
// under that number.
func (m *Meeting) More(ctx context.Context, connection uint16, kind wire.CarrierKind, of tunnel.Identity) (Met, error) {
	if !m.client {
		if err := m.use(connection); err != nil {
			return Met{}, err
		}
		if m.Config.Again {
			defer m.free(connection)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, joinTime, errSlow)
	defer cancel()
	ways, at := m.Leg.Of(connection, kind)
	return m.meet(ctx, attempt{connection: connection, ways: ways, at: at, of: &of})
}

// use takes a number that the peer has announced. Announcements may overtake
// each other on different carriers.
func (m *Meeting) use(connection uint16) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if connection == 0 || connection >= maxConnections || m.used[connection] {
		return fmt.Errorf("%w: CARRIER %d is no number for another carrier of the session", wire.ErrMalformed, connection)
	}
	if m.used == nil {
		m.used = make(map[uint16]bool)
	}
	m.used[connection] = true
	return nil
}

// free has a number used again.
func (m *Meeting) free(connection uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.used, connection)
}

// attempt is one carrier to be made.
type attempt struct {
	connection uint16
	ways       []path.Way
	at         []time.Duration  // when to begin with each way
	of         *tunnel.Identity // the carrier is to belong to that tunnel and no other
}

// meet makes a carrier.
func (m *Meeting) meet(ctx context.Context, a attempt) (Met, error) {
	if len(a.ways) == 0 {
		return Met{}, fmt.Errorf("join carrier %d: %w", a.connection, ErrNoWay)
	}
	won, err := m.race(ctx, a)
	if err != nil {
		return Met{}, fmt.Errorf("join carrier %d: %w", a.connection, err)
	}
	won.way.Taken()
	met, err := m.greet(ctx, won, a.of)
	if err != nil {
		if ctx.Err() == nil {
			won.way.Lost()
		}
		return Met{}, fmt.Errorf("join carrier %d: %w", a.connection, err)
	}
	return met, nil
}
