// Package lease holds the rules of a relay's sessions: which exist and for how
// long, which ports each has, who pays for it, and what a leg must show to be
// taken. It has no sockets and no clock: packages splice, udp and answer bring
// what came and when, and do what the answer says. Where a kernel plane runs, the
// rules also say which sources it lets through to packet ports, and have it keep
// what the next process needs to go on with the sessions (see Kernel).
package lease

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// Limits bound a Table. All numbers are at least 1.
type Limits struct {
	First, Last uint16 // session ports that have sockets
	Sessions    int    // at once
	PerPortal   int    // at once, that one portal has opened
	// SharedTCP and SharedUDP say that the relay has such a shared port, which
	// serves sessions that got no port of their own.
	SharedTCP, SharedUDP bool
	// Packet is what packet mode takes. Nil: no kernel plane runs; then no session
	// has packet ports, and nothing outlives the process.
	Packet *Packet
}

const (
	// MaxConnections is how many connection numbers a session's TCP legs may
	// use up over its life.
	MaxConnections = 1024
	// MaxBound is how many connections a session may have bound over UDP: each
	// may cost two sockets.
	MaxBound = 16
	// ProveTime is how long a session lasts of which no leg was proven: its
	// portals may never have heard of it.
	ProveTime = 30 * time.Second
	// maxTries is how many prefaces a leg may prove for one connection before
	// it is joined.
	maxTries = 16
)

// Refusal is why a session was not created.
type Refusal struct {
	Reason wire.Reason
	Text   string
}

func (r *Refusal) Error() string { return fmt.Sprintf("session refused: %v: %s", r.Reason, r.Text) }

// Session is what the edges need to know of a session. It is constant, but for
// its Port, which MovePort changes before anyone was told.
type Session struct {
	ID         wire.SessionID
	Portals    [2]string // the opener's first; of a ticket's session the relay knows none
	Transports wire.Transports
	Lifetime   time.Duration
	Ends       time.Time // of a ticket's session: with the ticket
	Port       uint16    // of splice mode and UDP alike; 0: the shared ports only
	Packet     [2]uint16 // the first port of each leg for packet mode; both 0: none
}

// Ticket reports whether the session is a ticket's, so that the server does not
// know of it.
func (s Session) Ticket() bool { return !s.Ends.IsZero() }

// TCP reports whether the session's portals can use TCP legs.
func (s Session) TCP() bool { return s.Transports&(wire.TransportSplice|wire.TransportTLS) != 0 }

// UDP reports whether the session's portals can use UDP legs.
func (s Session) UDP() bool { return s.Transports&wire.TransportUDP != 0 }

// Traffic is the payload that a session has carried, in bytes, by the leg that
// sent it.
type Traffic [2]uint64

// Plus returns the sum of t and u.
func (t Traffic) Plus(u Traffic) Traffic { return Traffic{t[0] + u[0], t[1] + u[1]} }

type session struct {
	Session
	secrets  [2]wire.Secret
	created  time.Time
	deadline time.Time
	proven   bool // a leg was, or a pair in packet mode installed
	traffic  Traffic
	settled  Traffic             // as told with Settle
	sources  [2][]netip.Addr     // admitted at the packet ports
	splices  map[uint16]*spliced // nil before the first
	usedUp   uint32              // connection numbers below were used before a restart
	next     uint32              // above all connection numbers that were proven
	meetings [2]uint64           // counters of the last Meeting preface of either leg
	met      int                 // pairs of Meeting connections joined so far
	binds    map[leg.ID]*bound   // nil before the first
	order    []leg.ID            // of binds, as they were first made
	unkept   bool                // the kernel would not keep its records
	maker    netip.Prefix        // of a ticket's session: who had it made
}

// bound is where a connection of a UDP leg is.
type bound struct {
	leg.Binding
	at     bpf.Leg
	shared bool // at the shared port
}

// spliced is one connection number of the TCP legs.
type spliced struct {
	joined bool
	nonces [2][]leg.Nonce // proven by either leg; nil once joined
}

// Table holds all sessions of a relay. It is safe for concurrent use.
type Table struct {
	limits Limits
	gate   *leg.Gate

	mu        sync.Mutex // guards the following
	sessions  map[wire.SessionID]*session
	perPortal map[string]int
	ports     ports
	// sources says which leg is bound to a source at the shared UDP port,
	// where all sessions meet.
	sources map[boundAt]leg.ID
	blocks  blocks
	tickets tickets
}

// NewTable returns an empty Table.
func NewTable(l Limits) *Table {
	t := &Table{
		limits:    l,
		gate:      leg.NewGate(),
		sessions:  make(map[wire.SessionID]*session),
		perPortal: make(map[string]int),
		ports:     newPorts(l.First, l.Last),
		sources:   make(map[boundAt]leg.ID),
		tickets:   tickets{perAddress: make(map[netip.Prefix]int), spent: make(map[wire.SessionID][2]uint64)},
	}
	if p := l.Packet; p != nil {
		t.blocks = newBlocks(p.First, p.Last)
	}
	return t
}

// SetPerPortal changes Limits.PerPortal. Sessions that are above it go on.
func (t *Table) SetPerPortal(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits.PerPortal = n
}

// Create makes a session of what the server asked for. A session that exists
// already, with the same secrets, is returned again, with fresh false: the
// server repeats itself when its connection was lost. The error is a *Refusal.
func (t *Table) Create(now time.Time, m wire.CreateSession) (s Session, fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	secrets := [2]wire.Secret{m.Legs[0].Secret, m.Legs[1].Secret}
	if old, ok := t.sessions[m.ID]; ok {
		if old.secrets != secrets {
			return Session{}, false, &Refusal{wire.ReasonProtocol, "a session with this id and other secrets exists"}
		}
		return old.Session, false, nil
	}
	opener := m.Legs[0].Portal
	if len(t.sessions) >= t.limits.Sessions {
		return Session{}, false, &Refusal{wire.ReasonBusy, fmt.Sprintf("the relay holds its limit of %d sessions", t.limits.Sessions)}
	}
	if t.perPortal[opener] >= t.limits.PerPortal {
		return Session{}, false, &Refusal{wire.ReasonBusy, fmt.Sprintf("portal %q has opened its limit of %d sessions at this relay", opener, t.limits.PerPortal)}
	}
	n := &session{
		Session: Session{
			ID:         m.ID,
			Portals:    [2]string{opener, m.Legs[1].Portal},
			Transports: m.Transports,
			Lifetime:   time.Duration(m.Lifetime) * time.Second,
		},
		secrets: secrets,
		created: now,
	}
	n.deadline = now.Add(min(n.Lifetime, ProveTime))
	if m.Transports&^wire.TransportPacket != 0 {
		n.Port = t.ports.take()
	}
	t.givePacketLocked(n, m.Legs)
	if n.Port == 0 && n.Packet[0] == 0 && !t.sharedServes(m.Transports) {
		return Session{}, false, &Refusal{wire.ReasonBusy, "no session port is left that the two portals could use"}
	}
	t.sessions[m.ID] = n
	t.perPortal[opener]++
	t.keepLocked(n)
	return n.Session, true, nil
}

// sharedServes reports whether the shared ports can carry one of the
// transports.
func (t *Table) sharedServes(set wire.Transports) bool {
	return set&t.sharedTransports() != 0
}

// MovePort gives a session another port, because its port could not be opened:
// some other program has it. That port stays out of use until the relay
// restarts. The new port is 0 when none is left and a shared port serves;
// a *Refusal when none does.
func (t *Table) MovePort(id wire.SessionID) (Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id]
	if !ok {
		return Session{}, &Refusal{wire.ReasonInternal, "the session has ended meanwhile"}
	}
	s.Port = t.ports.take() // the old one is not given back
	if s.Port == 0 && s.Packet[0] == 0 && !t.sharedServes(s.Transports) {
		return Session{}, &Refusal{wire.ReasonBusy, "no session port can be opened"}
	}
	t.keepLocked(s)
	return s.Session, nil
}

// Renew tells what a session has carried in all. If that is more than the last
// time, its lifetime starts anew.
func (t *Table) Renew(now time.Time, id wire.SessionID, total Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sessions[id]; ok && s.traffic != total {
		s.traffic = total
		s.lastLocked(now, s.Lifetime)
	}
}

// Expired returns the sessions whose lifetime is over. They are still there,
// and take no leg any more.
func (t *Table) Expired(now time.Time) []wire.SessionID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []wire.SessionID
	for id, s := range t.sessions {
		if s.over(now) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *session) over(now time.Time) bool { return !now.Before(s.deadline) }

// provenLocked lets the lifetime of a session begin anew because a leg was
// proven, and from now on without the bound of ProveTime.
func (s *session) provenLocked(now time.Time) {
	s.proven = true
	s.lastLocked(now, s.Lifetime)
}

// lastLocked lets a session last from now on, a ticket's at most until its end.
func (s *session) lastLocked(now time.Time, long time.Duration) {
	s.deadline = now.Add(long)
	if s.Ticket() && s.Ends.Before(s.deadline) {
		s.deadline = s.Ends
	}
}

// End takes a session out and gives back what it held. It reports whether the
// session was there.
func (t *Table) End(id wire.SessionID) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id]
	if !ok {
		return Session{}, false
	}
	delete(t.sessions, id)
	t.forgetLocked(s)
	for id, b := range s.binds {
		t.releaseSourceLocked(id, b.Source)
	}
	t.ports.give(s.Port)
	t.takePacketLocked(s)
	if s.Ticket() {
		t.endTicketLocked(s)
		return s.Session, true
	}
	opener := s.Portals[0]
	if t.perPortal[opener]--; t.perPortal[opener] == 0 {
		delete(t.perPortal, opener)
	}
	return s.Session, true
}

// Info is a session as status shows it.
type Info struct {
	Session
	Created time.Time
	Expires time.Time // unless traffic renews it
	Traffic Traffic
	Settled Traffic // as told with Settle
	Spliced int     // TCP connections joined so far
	Bound   int     // UDP legs bound
}

// List returns all sessions in no order.
func (t *Table) List() []Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Info, 0, len(t.sessions))
	for _, s := range t.sessions {
		i := Info{Session: s.Session, Created: s.created, Expires: s.deadline, Traffic: s.traffic, Settled: s.settled, Spliced: s.met, Bound: len(s.binds)}
		for _, c := range s.splices {
			if c.joined {
				i.Spliced++
			}
		}
		list = append(list, i)
	}
	return list
}

// Len returns how many sessions there are.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions)
}

// findLocked returns the session a leg names, if that leg may come in at port:
// its own, or the shared one, which is given as 0.
func (t *Table) findLocked(now time.Time, id wire.SessionID, port uint16) (*session, drop.Reason) {
	s, ok := t.sessions[id]
	switch {
	case !ok, port != 0 && port != s.Port:
		return nil, drop.UnknownSession
	case s.over(now):
		return nil, drop.Expired
	}
	return s, drop.None
}
