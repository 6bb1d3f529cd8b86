// Package broker holds the rules by which two portals meet: who may open a
// session, at which relay, and when it ends.
//
// It has no sockets, no clock and no goroutine. What happens is told to a
// Broker by its methods, with the time; what is to be sent goes to its Outlet.
// A session lives like this:
//
//	          Open                SessionReady                SessionDone, SessionOver,
//	(none) ---------> asking ---------------------> open ---- policy, new key ------------> (none)
//	                  |    ^
//	                  +----+ refused, late, gone, lying: the next relay
//	                  |
//	                  +----> (none), the portals that asked are refused
//
// A pair of portals has one session at most that we have opened and that is to
// stay, and one at most that is being asked for. If both ask at once, the one
// with the smaller name is the opener. Each attempt at a relay has an id and
// secrets of its own, so that an answer that comes too late belongs to nothing
// and is taken back at the relay.
//
// Beside these two stand sessions that are on their way out: one that is to leave
// its relay stays open while its successor is asked for (file move.go), and after
// that until a portal or the relay says that it is over, for its carriers carry on
// until the tunnel has moved. And there may be held ones: a broker that was
// started anew learns from the relays what they hold (file held.go). Such a session
// can be ended, moved and shown, but not told to a portal: its secrets are gone.
// Two relays may claim one each for the same pair, and neither displaces the
// other's; a session that a portal asks for ends both.
//
// A refusal tells a portal its reason only if it holds a grant that joins the
// two; to all others a peer that does not exist, one that is not theirs to
// reach and one that is offline are the same (ReasonNotGranted, no text).
package broker

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/couple"
)

const (
	// AskTimeout is how long a relay may take to answer before the next one is
	// asked.
	AskTimeout = 5 * time.Second
	// avoidTime is how long a relay that did not answer is left out.
	avoidTime = 10 * time.Second
	// SessionLifetime is how long a relay holds a session that carries nothing.
	// It is longer than any pause between the pings of a tunnel.
	SessionLifetime = 10 * time.Minute
	// MaxPending is how many requests of one portal may wait for a relay.
	MaxPending = 32
	// crossing is how long after a session was told to both portals a request
	// for it counts as one that crossed it on the way.
	crossing = 5 * time.Second
	// confirmTime is how long a relay that came back may take to say which
	// sessions it still holds, if that cannot be told from what it has said: a
	// message that is not full is the last one.
	confirmTime = 10 * time.Second
	// probePause is how often a relay is asked for a sign of life at most because
	// portals say that they have lost each other there.
	probePause = 5 * time.Second
	// forgetTime is how long sessions are remembered for a relay that is away.
	// Their tunnels go on without us.
	forgetTime = 10 * time.Minute
	// endTime is how long a relay may take to report what an ended session
	// carried.
	endTime = 30 * time.Second
)

// Grants is what the broker asks of the policy.
type Grants interface {
	// Look says whether the grant joins the two portals at the time now. It
	// returns the name of its forward and ReasonNone, ReasonGrantExpired if it
	// has ended, or ReasonNotGranted if there is none such for these two.
	Look(id wire.GrantID, a, b string, now time.Time) (forward string, reason wire.Reason)
	// Joined reports whether any grant joins the two.
	Joined(a, b string, now time.Time) bool
	// Pin returns the relay at which alone the two may meet, or "".
	Pin(a, b string, now time.Time) string
}

// Outlet takes what the broker sends. None of its methods may block or call
// back.
type Outlet interface {
	ToPortal(name string, m wire.ToPortal)
	ToRelay(name string, m wire.ToRelay)
	// ProbeRelay asks a relay for a sign of life. One that gives none is
	// connected no more soon after.
	ProbeRelay(name string)
	// DropRelay closes the connection of a relay that broke the rules.
	DropRelay(name, text string)
	Record(audit.Record)
}

// Broker is the state of all meetings. Its owner calls it from one goroutine at
// a time.
type Broker struct {
	grants      Grants
	out         Outlet
	maxSessions int // of one portal

	portals  map[string]*portal
	relays   map[string]*relay
	places   map[string]place              // of all relays that have said what they offer
	placed   int                           // counts the changes of places
	sessions map[wire.SessionID]*session   // asking and open
	byPair   map[couple.Portals][]*session // see the package
	ending   map[wire.SessionID]ending
	moves    int // that may still begin before the next Tick
}

type portal struct {
	address  netip.Addr
	epoch    uint64 // counts its connections
	online   bool
	sessions int                      // it has part in, asking ones included
	pending  int                      // requests of its own that wait for a relay
	times    map[string]time.Duration // its round trips to relays, as it measured them on this connection; 0: no answer
}

// session is one that is asked for or open. Index 0 is the opener's side.
type session struct {
	id      wire.SessionID
	open    bool
	held    bool // learned from its relay, after a restart of ours
	names   [2]string
	grant   wire.GrantID
	forward string
	asked   [2]request
	secrets [2]wire.Secret

	relay    string
	trips    [2]time.Duration // of either side to the relay, when it was chosen; 0: not known
	access   wire.RelayAccess // but for the packet ports
	packet   [2]uint16        // of either side
	tried    map[string]bool  // relays that would not, while asking
	lost     [2]string        // where either side has just lost the other, while asking
	deadline time.Time        // while asking

	opened     time.Time
	epochs     [2]uint64       // the connections on which it was told
	able       wire.Transports // of the portals
	transports wire.Transports // of the portals and the relay
	confirmed  bool            // the relay still holds it, as far as we know

	replaces  wire.SessionID // the session from which the tunnel moves to this one
	left      bool           // another was told in its place
	misplaced time.Time      // open where the policy does not want it; it ends then
	pause     time.Time      // no relay took its successor: not asked for before then
}

// request is what one side asked for; number 0 if it did not.
type request struct {
	number     uint32
	transports wire.Transports
}

// ending is a session that is over but for what it carried.
type ending struct {
	record   audit.Record
	relay    string
	deadline time.Time
}

// New returns a broker. maxSessions is how many sessions one portal may have
// part in.
func New(grants Grants, out Outlet, maxSessions int) *Broker {
	return &Broker{
		grants: grants, out: out, maxSessions: maxSessions,
		portals:  make(map[string]*portal),
		relays:   make(map[string]*relay),
		sessions: make(map[wire.SessionID]*session),
		moves:    moveRate,
		byPair:   make(map[couple.Portals][]*session),
		places:   make(map[string]place),
		ending:   make(map[wire.SessionID]ending),
	}
}

// SetMaxSessions changes how many sessions one portal may have part in. Those that are
// above it go on.
func (b *Broker) SetMaxSessions(n int) { b.maxSessions = n }

// PortalUp says that a portal is connected, from the given address, anew if it
// was. What it asked for on an older connection is cancelled without a word: an
// answer would be taken for one to a request of the new connection.
func (b *Broker) PortalUp(name string, address netip.Addr) {
	p := b.portals[name]
	if p == nil {
		p = &portal{}
	}
	p.online = false
	b.cancelRequests(name)
	b.portals[name] = p
	p.address, p.online, p.times = address, true, nil
	p.epoch++
}

// PortalDown says that a portal is connected no more. What it asked for is
// cancelled; its open sessions go on, for they do not need us.
func (b *Broker) PortalDown(name string) {
	p := b.portals[name]
	if p == nil {
		return
	}
	p.online, p.times = false, nil
	b.cancelRequests(name)
	b.tidy(name)
}

// tidy forgets a portal of which nothing is left.
func (b *Broker) tidy(name string) {
	if p := b.portals[name]; p != nil && !p.online && p.sessions == 0 {
		delete(b.portals, name)
	}
}

// cancelRequests ends what is being asked for by or towards a portal.
func (b *Broker) cancelRequests(name string) {
	for _, s := range b.sessions {
		if s.open || s.names[0] != name && s.names[1] != name {
			continue
		}
		b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonPeerOffline})
		b.fail(s, wire.ReasonPeerOffline)
	}
}

// side returns the index of a portal in s, or -1.
func (s *session) side(name string) int {
	for i, n := range s.names {
		if n == name {
			return i
		}
	}
	return -1
}

// add makes s known; its id is set.
func (b *Broker) add(s *session) {
	b.sessions[s.id] = s
	p := couple.Of(s.names[0], s.names[1])
	b.byPair[p] = append(b.byPair[p], s)
	if r := b.relays[s.relay]; r != nil {
		r.ours++
	}
	if s.held {
		return // a relay's word must not use up a portal's quota
	}
	for i, n := range s.names {
		b.portals[n].sessions++
		if !s.open && s.asked[i].number != 0 {
			b.portals[n].pending++
		}
	}
}

// remove forgets s.
func (b *Broker) remove(s *session) {
	delete(b.sessions, s.id)
	p := couple.Of(s.names[0], s.names[1])
	b.byPair[p] = slices.DeleteFunc(b.byPair[p], func(o *session) bool { return o == s })
	if len(b.byPair[p]) == 0 {
		delete(b.byPair, p)
	}
	if r := b.relays[s.relay]; r != nil {
		r.ours--
	}
	if s.held {
		return
	}
	for i, n := range s.names {
		b.portals[n].sessions--
		if !s.open && s.asked[i].number != 0 {
			b.portals[n].pending--
		}
		b.tidy(n)
	}
}

func (b *Broker) toPortal(name string, m wire.ToPortal) {
	if p := b.portals[name]; p != nil && p.online {
		b.out.ToPortal(name, m)
	}
}

func (b *Broker) toRelay(name string, m wire.ToRelay) {
	if r := b.relays[name]; r != nil && r.online {
		b.out.ToRelay(name, m)
	}
}
