// Package path finds ways between two portals and gives their carriers
// connections over them. Here is the way over a relay, in three forms:
// both portals dial the relay, prove their legs, and the relay joins the two
// connections (splice mode); both dial the same port of it, and the relay
// makes one TCP connection from portal to portal of the two, by rewriting
// packets (packet mode); or both bind a UDP leg at the relay, and speak QUIC over
// the two.
//
// A Finder makes Legs and remembers what works in which network. A Leg is one
// portal's way into one session, and a Way the connection that one carrier may
// take: a carrier sees nothing but a connection. Package direct has the ways past
// any relay, which are Legs and Ways too, and package packet the UDP sockets.
package path

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// Transports are the ways that this portal can use.
const Transports = wire.TransportSplice | wire.TransportPacket | wire.TransportUDP | wire.TransportTLS

// Leg is this portal's way into one session. Its methods are safe for
// concurrent use.
type Leg struct {
	finder  *Finder
	session wire.Session
	ticket  bool // nothing of this session was agreed on with the other portal
	log     *slog.Logger
	splice  []candidate      // none: no splice mode
	packet  netip.AddrPort   // of connection 0; invalid: no packet mode
	udp     []netip.AddrPort // where the UDP leg may be bound; none: no UDP
	own     bool             // the UDP port is shared with other sessions
	release func()           // of the watch on the clocks

	taken   atomic.Pointer[candidate] // by the last carrier
	stalled atomic.Bool               // packet mode has connected, and no carrier came up
	meeting atomic.Uint64             // counter of the last Meeting preface

	mu      sync.Mutex // guards the following
	closed  bool
	binding *binding               // nil: nobody uses the UDP leg
	users   int                    // of binding
	expect  func(*packet.Endpoint) // what the TLS server takes; nil: nothing yet
}

// Leg returns the way into a session that the server at that address has
// announced. The error says why its relay is not dialled. The Leg must be closed.
func (f *Finder) Leg(session wire.Session, server netip.Addr) (*Leg, error) {
	return f.leg(session, server, false)
}

// Ticket returns the way into the standing session of a ticket that the server
// at that address has given out. It has only the ways of Again.
func (f *Finder) Ticket(t wire.Ticket, server netip.Addr) (*Leg, error) {
	return f.leg(wire.Session{
		ID: t.Session, Leg: t.Leg, Secret: t.Secret, Peer: t.Peer, Relay: t.Relay, Transports: t.Transports,
	}, server, true)
}

func (f *Finder) leg(session wire.Session, server netip.Addr, ticket bool) (*Leg, error) {
	if err := checkAccess(session.Relay, server); err != nil {
		return nil, err
	}
	transports := session.Transports & f.transports(session.Relay)
	l := &Leg{
		finder: f, session: session, ticket: ticket,
		log:    f.Log.With("peer", session.Peer, "relay", session.Relay.Name, "session", session.ID.String()),
		splice: candidates(session.Relay, transports, f.memory.spliceFirst(session.Relay.Name)),
		packet: packetAddr(session.Relay, transports, server),
	}
	l.udp, l.own = udpAddrs(session.Relay, transports, server)
	if len(l.splice) == 0 && !l.packet.IsValid() && len(l.udp) == 0 {
		if f.transports(session.Relay) != Transports {
			return nil, fmt.Errorf("relay %q has no port for TLS (shared_tcp_port), and nothing else passes the proxy", session.Relay.Name)
		}
		return nil, fmt.Errorf("relay %q offers no way that this portal can use", session.Relay.Name)
	}
	f.add(l)
	if len(l.udp) > 0 && !l.own && !ticket && f.mirror.wanted() {
		l.lookEarly()
	}
	return l, nil
}

// transports returns what can be used with a relay: where a proxy is set for it, nothing
// but TLS, which is what proxies are for.
func (f *Finder) transports(access wire.RelayAccess) wire.Transports {
	for _, a := range access.Addresses {
		if f.Proxy.Through(netip.AddrPortFrom(a.Unmap(), access.SharedTCP).String()) != nil {
			return wire.TransportTLS
		}
	}
	return Transports
}

// Ways returns the ways for the carrier of that number, at least one, in the
// order in which to try them, and when to begin each, from the first on; a way
// begins earlier if all before it have failed. Where nothing is known of them,
// packet mode comes first, being the quickest of all once it runs; QUIC
// follows before anybody notices, and splice mode a moment later: it works
// nearly everywhere, and so it is there before 300 ms are lost. Where there is no
// packet mode, splice mode does not wait. Nor does anybody wait for a way that
// has failed in this network.
//
// Both portals try all, so two that remember different things still dial the
// same way at nearly the same time, and what works again is found without
// anybody having to wait.
func (l *Leg) Ways(connection uint16) (ways []Way, at []time.Duration) {
	if l.ticket {
		return l.Again()
	}
	memory, pair := l.finder.memory, l.pairing()
	r := &race{leg: l, connection: connection}
	add := func(w Way, begin time.Duration) {
		i := len(at)
		for i > 0 && at[i-1] > begin {
			i--
		}
		ways, at = slices.Insert(ways, i, w), slices.Insert(at, i, begin)
	}
	ahead := l.packet.IsValid() && !memory.doubts(packetBad, pair)
	if l.packet.IsValid() {
		r.packet = &packetWay{race: r, addr: l.packetAddr(connection), ahead: ahead}
		add(r.packet, 0)
	}
	quic := len(l.udp) > 0
	if quic {
		r.quic = &quicWay{race: r}
		begin := quicAfter
		if memory.holds(quicFirst, pair) || l.packet.IsValid() && !ahead || len(l.splice) == 0 && r.packet == nil {
			begin = 0
		}
		add(r.quic, begin)
	}
	if len(l.splice) > 0 {
		r.splice = r.newSplice(connection, nil)
		begin := time.Duration(0)
		if ahead || l.packet.IsValid() && quic && !memory.doubts(quicBad, pair) {
			begin = spliceAfter
		}
		add(r.splice, begin)
		if first := l.splice[0].mode; connection == 0 && slices.ContainsFunc(l.splice, func(c candidate) bool { return c.mode != first }) {
			add(r.newSplice(leg.Meeting, r.splice), begin+resortAfter)
		}
	}
	return ways, at
}

// When QUIC and splice mode begin if a way of TCP, or one before them, is to be
// tried alone; and how long after splice mode its resort does, which is for
// networks that let a connection open and then break, or swallow, what it carries.
// It has a number that is good for many tries: that of the first is used up if the
// relay has joined it.
const (
	quicAfter   = 50 * time.Millisecond
	spliceAfter = 225 * time.Millisecond
	resortAfter = time.Second
)

// Again returns the ways for a carrier that the portals have no number for:
// after a loss, or when they have nothing but a ticket. Both portals use them at
// nearly the same time, or one after the other. There may be none.
func (l *Leg) Again() (ways []Way, at []time.Duration) {
	r := &race{leg: l, connection: leg.Meeting}
	if len(l.splice) > 0 {
		r.splice = r.newSplice(leg.Meeting, nil)
		ways, at = append(ways, r.splice), append(at, 0)
	}
	if len(l.udp) > 0 {
		r.quic = &quicWay{race: r, anew: true}
		ways, at = append(ways, r.quic), append(at, 0)
	}
	if len(l.splice) > 0 {
		ways, at = append(ways, r.newSplice(leg.Meeting, nil)), append(at, anewAfter)
	}
	return ways, at
}

// anewAfter is when splice mode is dialled once more after a loss. What has just broken
// may break again: a NAT that starts forgets the first connections too, and a leg that
// waits at the relay does not find out. There the newer takes its place.
const anewAfter = 1500 * time.Millisecond

// Of returns the ways for a further carrier of that number and kind. There may
// be none.
func (l *Leg) Of(connection uint16, kind wire.CarrierKind) (ways []Way, at []time.Duration) {
	all, begin := l.Ways(connection)
	for i, w := range all {
		if w.Kind() == kind {
			ways, at = append(ways, w), append(at, begin[i])
		}
	}
	for i := range at {
		at[i] -= at[0]
	}
	return ways, at
}

// Failed tells that no carrier came up, though a connection may have: what is
// between here and the relay may let connections pass and not what they carry.
// Packet mode gets no head start then.
func (l *Leg) Failed() {
	if l.stalled.Load() {
		l.doubt(packetBad, true, "it connects, and no carrier comes up")
	}
}

// doubt has a way lose its head start.
func (l *Leg) doubt(way subject, connected bool, why string) {
	l.finder.memory.failed(way, l.pairing(), connected)
	l.log.Info("a way gets no head start for a while", "way", string(way), "error", why)
}

// trust gives a way its head start back.
func (l *Leg) trust(way subject, carried bool) {
	if l.finder.memory.worked(way, l.pairing(), carried) {
		l.log.Info("a way works again", "way", string(way))
	}
}

// take notes what a carrier has come up on.
func (l *Leg) take(c candidate, connection uint16) {
	l.taken.Store(&c)
	l.log.Debug("way taken", "path", c.mode.String(), "address", c.addr.String(), "connection", connection)
}

func (l *Leg) pairing() pairing { return pairing{l.session.Relay.Name, l.session.Peer} }

func (l *Leg) packetAddr(connection uint16) netip.AddrPort {
	return netip.AddrPortFrom(l.packet.Addr(), l.packet.Port()+connection%leg.PacketPorts)
}

// preface returns what proves a connection of the leg. Those of one leg that
// have no agreed number have counters that rise.
func (l *Leg) preface(connection uint16) leg.Preface {
	if connection != leg.Meeting {
		return leg.NewPreface(leg.ID{Session: l.session.ID, Leg: l.session.Leg, Connection: connection})
	}
	for {
		last := l.meeting.Load()
		next := max(last+1, l.finder.counter())
		if l.meeting.CompareAndSwap(last, next) {
			return leg.NewMeeting(l.session.ID, l.session.Leg, next)
		}
	}
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

// Refresh binds the UDP leg anew, if it is in use: the network has changed, or
// the other portal is silent. What runs over it goes on.
func (l *Leg) Refresh() {
	l.mu.Lock()
	b := l.binding
	l.mu.Unlock()
	if b != nil {
		b.refresh()
	}
}

// Close gives the leg up. QUIC connections over it must have been closed; those
// that have not hear nothing any more.
func (l *Leg) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.finder.remove(l)
	if l.binding != nil {
		l.binding.close()
		l.binding = nil
	}
}
