// Package path finds ways between two portals and gives their carriers
// connections over them. What exists is the way over a relay, in two modes:
// both portals dial the relay, prove their legs, and the relay joins the two
// connections (splice mode); or both dial the same port of it, and the relay
// makes one TCP connection from portal to portal of the two, by rewriting
// packets (packet mode).
//
// A Leg is one portal's way into one session, and a Way the connection that one
// carrier may take. Both are the seam for ways to come (UDP, direct): a
// carrier sees nothing but a connection.
package path

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/eyeballs"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// Transports are the ways that this portal can use.
const Transports = wire.TransportSplice | wire.TransportPacket | wire.TransportTLS

// Finder makes Legs and remembers what works with which relay. It is safe for
// concurrent use.
type Finder struct {
	credentials *identity.Credentials
	log         *slog.Logger
	memory      *memory
}

// NewFinder returns a Finder for the portal with these credentials.
func NewFinder(credentials *identity.Credentials, log *slog.Logger) *Finder {
	return &Finder{credentials: credentials, log: log, memory: newMemory()}
}

// Leg is this portal's way into one session. Its methods are safe for
// concurrent use.
type Leg struct {
	finder  *Finder
	session wire.Session
	log     *slog.Logger
	splice  []candidate    // none: no splice mode
	packet  netip.AddrPort // of connection 0; invalid: no packet mode

	taken   atomic.Pointer[candidate] // by the last carrier
	spliced atomic.Pointer[candidate] // connected and proven last
	stalled atomic.Bool               // packet mode has connected, and no carrier came up
}

// Leg returns the way into a session that the server at that address has
// announced. The error says why its relay is not dialled.
func (f *Finder) Leg(session wire.Session, server netip.Addr) (*Leg, error) {
	if err := checkAccess(session.Relay, server); err != nil {
		return nil, err
	}
	transports := session.Transports & Transports
	l := &Leg{
		finder: f, session: session,
		log:    f.log.With("peer", session.Peer, "relay", session.Relay.Name, "session", session.ID.String()),
		splice: candidates(session.Relay, transports, f.memory.spliceFirst(session.Relay.Name)),
		packet: packetAddr(session.Relay, transports, server),
	}
	if len(l.splice) == 0 && !l.packet.IsValid() {
		return nil, fmt.Errorf("relay %q offers no way that this portal can use", session.Relay.Name)
	}
	return l, nil
}

// Ways returns the ways for the carrier of that number, at least one, in the
// order in which to try them, and how long apart. Packet mode is tried first,
// alone for a moment, unless it has failed between these two portals: then
// both are tried at once. So two portals that remember different things still
// dial the same way at nearly the same time, and packet mode that works again
// is found without anybody having to wait.
func (l *Leg) Ways(connection uint16) (ways []Way, apart time.Duration) {
	var packet *packetWay
	if l.packet.IsValid() {
		packet = &packetWay{
			leg: l, connection: connection,
			addr:  netip.AddrPortFrom(l.packet.Addr(), l.packet.Port()+connection%leg.PacketPorts),
			ahead: !l.finder.memory.doubts(pairingOf(l.session)),
		}
	}
	splice := &spliceWay{leg: l, connection: connection, packet: packet}
	switch {
	case packet == nil:
		return []Way{splice}, 0
	case len(l.splice) == 0:
		return []Way{packet}, 0
	case packet.ahead:
		return []Way{packet, splice}, eyeballs.Stagger
	}
	return []Way{splice, packet}, 0
}

// Failed tells that no carrier came up, though a connection may have: what is
// between here and the relay may let connections pass and not what they carry.
// The next session at this relay begins with another mode.
func (l *Leg) Failed() {
	if c := l.spliced.Load(); c != nil {
		l.finder.memory.rememberSplice(l.session.Relay.Name, (c.mode+1)%spliceModes)
	}
	if l.stalled.Load() {
		l.doubt(true, "it connects, and no carrier comes up")
	}
}

// doubt has packet mode lose its head start.
func (l *Leg) doubt(connected bool, why string) {
	l.finder.memory.packetFailed(pairingOf(l.session), connected)
	l.log.Info("packet mode gets no head start for a while", "error", why)
}

// trust gives packet mode its head start back.
func (l *Leg) trust(carried bool) {
	if l.finder.memory.packetWorked(pairingOf(l.session), carried) {
		l.log.Info("packet mode works again")
	}
}

// take notes what a carrier has come up on.
func (l *Leg) take(c candidate, connection uint16) {
	l.taken.Store(&c)
	l.log.Debug("way taken", "path", c.mode.String(), "address", c.addr.String(), "connection", connection)
}

// Relay returns the name of the relay.
func (l *Leg) Relay() string { return l.session.Relay.Name }

// Mode returns the way that the last carrier took and the relay's address;
// none before the first.
func (l *Leg) Mode() (mode string, addr netip.AddrPort) {
	c := l.taken.Load()
	if c == nil {
		return "", netip.AddrPort{}
	}
	return c.mode.String(), c.addr
}
