package lease

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// A ticket's session is ordered by nobody: whoever proves a leg of it, with the
// secret that follows from a key of the server's, has it made.
//
//	unknown session --its id is a ticket's, not ended--> MAC right by a key?
//	    --preface, number Meeting--------------> made
//	    --bind, first request------------------> challenge; nothing is kept
//	    --bind, second request, NONCE right----> made
//
// Tickets must not keep out what the server orders: they take a quarter of the
// relay's sessions at most, half of that from one address, and where the table is
// full an ordered session takes the place of one of them (Displaced).

const (
	// TicketLifetime is how long a ticket's session lasts that carries nothing.
	TicketLifetime = 10 * time.Minute
	// MaxTicketTries is how many prefaces, and how many binds, that name unknown
	// tickets are looked at in one second. Each costs two MACs for every key: a
	// twentieth of a processor for binds and one key. What is beyond is dropped, true
	// ones among it: a portal repeats them.
	MaxTicketTries = 20_000

	ticketShare  = 4
	addressShare = 2
	// maxSpent bounds the tickets whose counters are remembered after their session
	// has ended. Beyond it the one that ends first is forgotten.
	maxSpent = 1 << 14
)

// The counters of tickets, and all else here, are forgotten with a relay that keeps
// nothing over a restart (no pin_dir). Whoever has caught the preface of a ticket, on a
// way without TLS, may then have it taken once, until the portal itself has dialled. He
// is a leg that waits, in the portal's place: the other portal is joined with him, hears
// nothing that proves anything, and meets the true one as soon as that dials, for its
// counter is higher and his leg has proven nothing (splice's meetingGrace, 2 s, if he is
// silent; the handshake, at once, if he is not). The session that he holds counts
// against his address. Counters cannot be compared with the time of the relay's start:
// a portal's clock may be wrong, and must not keep it out.

// Ticket is one that somebody has proven to hold. Only a Table makes it.
type Ticket struct {
	id      wire.SessionID
	ends    time.Time
	secrets [2]wire.Secret
}

// String hides the secrets.
func (k Ticket) String() string { return k.id.String() }

// tickets is what a Table knows of tickets.
type tickets struct {
	keys            []wire.Secret // replaced as a whole
	prefaces, binds pace
	sessions        int                          // of those the table holds
	perAddress      map[netip.Prefix]int         // of them, by who had them made
	spent           map[wire.SessionID][2]uint64 // last counters of sessions that have ended
}

// pace counts what happens in one second.
type pace struct {
	second int64
	n      int
}

func (p *pace) admit(now time.Time, most int) bool {
	if second := now.Unix(); second != p.second {
		*p = pace{second: second}
	}
	p.n++
	return p.n <= most
}

// SetTicketKeys says which keys tickets are made with, in the place of those
// before. Sessions that exist go on.
func (t *Table) SetTicketKeys(keys []wire.Secret) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tickets.keys = slices.Clone(keys)
}

// Tickets returns how many keys of tickets are known, and how many of the sessions
// are tickets'.
func (t *Table) Tickets() (keys, sessions int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tickets.keys), t.tickets.sessions
}

// TicketPreface judges a preface at the shared port that names a session that the
// relay does not hold. With None the ticket is proven, and its session can be
// made (Take).
func (t *Table) TicketPreface(now time.Time, p leg.Preface) (Ticket, drop.Reason) {
	keys, last, why := t.tryTicket(now, p.ID, &t.tickets.prefaces)
	switch {
	case why != drop.None:
		return Ticket{}, why
	case p.ID.Connection != leg.Meeting:
		return Ticket{}, drop.UnknownSession
	}
	for _, key := range keys {
		if p.ProvenBy(ticket.Secret(key, p.ID.Session, p.ID.Leg)) {
			if p.Counter() <= last {
				return Ticket{}, drop.Replayed
			}
			return newTicket(key, p.ID.Session), drop.None
		}
	}
	return Ticket{}, drop.WrongMAC
}

// TicketBind judges a bind request at the shared port that names a session that
// the relay does not hold. The ticket is nil, and the outcome what there is to
// do, unless the request proves its source too: then the session can be made
// (Take) and the request be judged by Bind.
func (t *Table) TicketBind(now time.Time, q leg.Request, source netip.AddrPort) (*Ticket, Outcome) {
	keys, _, why := t.tryTicket(now, q.ID, &t.tickets.binds)
	if why != drop.None {
		return nil, Outcome{Drop: why}
	}
	for _, key := range keys {
		verdict, answer := t.gate.Judge(now, q, source, ticket.Secret(key, q.ID.Session, q.ID.Leg), leg.Binding{})
		switch verdict {
		case leg.WrongMAC:
			continue
		case leg.Bind:
			k := newTicket(key, q.ID.Session)
			return &k, Outcome{}
		}
		return nil, outcome(verdict, answer)
	}
	return nil, Outcome{Drop: drop.WrongMAC}
}

// tryTicket returns the keys by which a leg of an unknown session may be proven,
// if it is a ticket's, and the last counter of that leg's meetings.
func (t *Table) tryTicket(now time.Time, id leg.ID, pace *pace) (keys []wire.Secret, last uint64, why drop.Reason) {
	ends, ok := ticket.Ends(id.Session)
	if !ok {
		return nil, 0, drop.UnknownSession
	}
	if !now.Before(ends) {
		return nil, 0, drop.Expired
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.tickets.keys) == 0 {
		return nil, 0, drop.UnknownSession
	}
	if !pace.admit(now, MaxTicketTries) {
		return nil, 0, drop.Limit
	}
	return t.tickets.keys, t.tickets.spent[id.Session][id.Leg], drop.None
}

// newTicket returns the ticket of a session, as the holder of a key makes it.
func newTicket(key wire.Secret, id wire.SessionID) Ticket {
	ends, _ := ticket.Ends(id)
	return Ticket{id: id, ends: ends, secrets: [2]wire.Secret{ticket.Secret(key, id, 0), ticket.Secret(key, id, 1)}}
}

// Take makes the session of a ticket that a leg from source has proven, if there
// is room. One that is there already is returned, with fresh false.
func (t *Table) Take(now time.Time, k Ticket, source netip.Addr) (s Session, fresh bool, why drop.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.sessions[k.id]; ok {
		return old.Session, false, drop.None
	}
	room := max(1, t.limits.Sessions/ticketShare)
	from := networkOf(source)
	if len(t.sessions) >= t.limits.Sessions || t.tickets.sessions >= room || t.tickets.perAddress[from] >= max(1, room/addressShare) {
		return Session{}, false, drop.Limit
	}
	n := &session{
		Session: Session{ID: k.id, Ends: k.ends, Lifetime: TicketLifetime, Transports: t.sharedTransports()},
		secrets: k.secrets, created: now, maker: from, meetings: t.tickets.spent[k.id],
	}
	n.lastLocked(now, ProveTime)
	delete(t.tickets.spent, k.id)
	t.sessions[k.id] = n
	t.tickets.sessions++
	t.tickets.perAddress[from]++
	t.keepLocked(n)
	return n.Session, true, drop.None
}

// sharedTransports are those that the shared ports take.
func (t *Table) sharedTransports() (set wire.Transports) {
	if t.limits.SharedTCP {
		set |= wire.TransportSplice | wire.TransportTLS
	}
	if t.limits.SharedUDP {
		set |= wire.TransportUDP
	}
	return set
}

// endTicketLocked forgets what is counted for a ticket's session that has been
// taken out, and remembers its counters: a captured preface must not make it
// again.
func (t *Table) endTicketLocked(s *session) {
	k := &t.tickets
	k.sessions--
	if k.perAddress[s.maker]--; k.perAddress[s.maker] <= 0 {
		delete(k.perAddress, s.maker)
	}
	if s.meetings == [2]uint64{} {
		return
	}
	if len(k.spent) >= maxSpent {
		var first wire.SessionID
		for id := range k.spent {
			if first.IsZero() || endsBefore(id, first) {
				first = id
			}
		}
		delete(k.spent, first)
	}
	k.spent[s.ID] = s.meetings
}

func endsBefore(a, b wire.SessionID) bool {
	x, _ := ticket.Ends(a)
	y, _ := ticket.Ends(b)
	return x.Before(y)
}

// Displaced returns the ticket's session that is to end for the next that the
// server orders, if the table is full and holds any: the one that would end
// first.
func (t *Table) Displaced() (wire.SessionID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sessions) < t.limits.Sessions || t.tickets.sessions == 0 {
		return wire.SessionID{}, false
	}
	var least *session
	for _, s := range t.sessions {
		if s.Ticket() && (least == nil || s.deadline.Before(least.deadline)) {
			least = s
		}
	}
	return least.ID, true
}

// networkOf returns what counts as one address: an IPv6 customer has a whole /64.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // an error only for the zero Addr
	return p
}
