package hub

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
	"github.com/netport/netport/server/internal/ticketkey"
)

// Every two portals that a grant joins hold tickets for the same few relays, so
// that they meet there when no server can be asked. Both are told of a change when
// it comes, or when they connect. Nobody is told that a ticket is worth nothing any
// more: a ticket permits nothing. Whose grants were taken back, or whose stamps
// have ended, is refused by the other portal, wherever they meet; and a portal
// whose key was replaced or revoked is refused in the handshake of the tunnel.

const (
	// maxTickets is how many relays the tickets of two portals are for.
	maxTickets = 3
	// A portal with 10,000 peers is owed 30,000 tickets at once, and so is
	// everybody when a server has come back. ticketPairs pairs are served at a
	// time, then there is a pause in which others are heard: so all tickets
	// together take a few percent of a processor, and 100,000 pairs about 20 s.
	ticketPairs = 500
	ticketPause = 100 * time.Millisecond
)

// standing is what the tickets of a pair are.
type standing struct {
	generation int
	relays     []string
	versions   []int  // of the relays' places
	measured   bool   // the relays were chosen by round trips
	pin        string // the relay that the policy wanted
}

// tickets is what the hub knows of them. The hub's mutex guards it.
type tickets struct {
	ends       time.Time     // of what is issued now
	masters    []wire.Secret // as they were last told to relays; what they are for no relay
	generation int           // of all tickets: rises with ends and with the key
	placed     int           // the broker's count of places, as far as was looked at
	standing   map[couple.Portals]standing

	order []couple.Portals           // who is owed a look, in turn
	owed  map[couple.Portals][2]bool // and whether a and b are owed tickets in any case
	wake  chan struct{}              // capacity 1: order is not empty any more
}

func newTickets() tickets {
	return tickets{standing: make(map[couple.Portals]standing), owed: make(map[couple.Portals][2]bool), wake: make(chan struct{}, 1)}
}

// age notices that tickets are to change with the time: their end has moved on,
// or the key.
func (h *Hub) age(now time.Time) {
	t := &h.tickets
	ends, masters := ticketkey.Ends(now), h.keys.Of("", now)
	if !slices.Equal(masters, t.masters) {
		for name, c := range h.relays {
			c.link.Send(wire.TicketKeys{Keys: h.keys.Of(name, now)})
		}
	}
	if ends.Equal(t.ends) && len(t.masters) > 0 && masters[0] == t.masters[0] {
		t.masters = masters
		return
	}
	t.ends, t.masters = ends, masters
	t.generation++
	h.oweAll(now)
}

// owe has a pair looked at. to is the portal of the two that gets its tickets in
// any case, or "".
func (h *Hub) owe(x, y, to string) {
	t := &h.tickets
	p := couple.Of(x, y)
	flags, ok := t.owed[p]
	if !ok {
		t.order = append(t.order, p)
	}
	flags[0] = flags[0] || p.A == to
	flags[1] = flags[1] || p.B == to
	t.owed[p] = flags
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// oweAll has all pairs looked at of which a portal is connected.
func (h *Hub) oweAll(now time.Time) {
	for name := range h.portals {
		h.owePeers(name, now)
	}
}

func (h *Hub) owePeers(name string, now time.Time) {
	for _, g := range h.registry.Of(name, now) {
		h.owe(name, otherOf(g.Permission, name), "")
	}
}

// notePlaces has all pairs looked at when a relay has come or changed its ports.
func (h *Hub) notePlaces(now time.Time) {
	if n := h.broker.Placed(); n != h.tickets.placed {
		h.tickets.placed = n
		h.oweAll(now)
	}
}

// notePins has the pairs looked at of which the policy wants another relay.
func (h *Hub) notePins(now time.Time) {
	for p, s := range h.tickets.standing {
		if h.registry.Pin(p.A, p.B, now) != s.pin {
			h.owe(p.A, p.B, "")
		}
	}
}

// settle serves some of the pairs that are owed a look, and reports whether
// there were any: then it is called again after a pause.
func (h *Hub) settle(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &h.tickets
	keys := make(map[string]wire.Secret)
	n := min(len(t.order), ticketPairs)
	for _, p := range t.order[:n] {
		flags := t.owed[p]
		delete(t.owed, p)
		if !h.registry.Joined(p.A, p.B, now) {
			delete(t.standing, p)
			continue
		}
		s, changed := h.choose(now, p)
		for i, name := range []string{p.A, p.B} {
			if c := h.portals[name]; c != nil && (changed || flags[i]) {
				h.sendTickets(now, c.link, p, i, s, keys)
			}
		}
	}
	if t.order = t.order[n:]; len(t.order) == 0 {
		t.order = nil
	}
	return n > 0
}

// choose returns the relays of a pair's tickets, and whether they or the tickets
// are others than before. Relays are chosen anew with each generation, and when
// there is a reason: fewer than could be, a pin, or that both portals have only
// now measured. Otherwise they stay, so that tickets come seldom and both portals
// hold the same.
func (h *Hub) choose(now time.Time, p couple.Portals) (standing, bool) {
	old := h.tickets.standing[p]
	s := standing{generation: h.tickets.generation, relays: old.relays, measured: old.measured, pin: h.registry.Pin(p.A, p.B, now)}
	relays, measured := h.broker.Standing(now, p.A, p.B, maxTickets)
	if old.generation != s.generation || len(old.relays) < maxTickets || old.pin != s.pin || measured && !old.measured {
		s.relays, s.measured = relays, measured
	}
	for _, r := range s.relays {
		_, _, version := h.broker.Shared(r)
		s.versions = append(s.versions, version)
	}
	h.tickets.standing[p] = s
	changed := old.generation != s.generation || !slices.Equal(old.relays, s.relays) || !slices.Equal(old.versions, s.versions)
	return s, changed
}

// sendTickets sends a portal its half of a pair's tickets. keys remembers the
// relays' keys.
func (h *Hub) sendTickets(now time.Time, to link[wire.ToPortal], p couple.Portals, side int, s standing, keys map[string]wire.Secret) {
	for _, relay := range s.relays {
		access, set, _ := h.broker.Shared(relay)
		if set == 0 {
			continue
		}
		key, ok := keys[relay]
		if !ok {
			key = h.keys.Of(relay, now)[0]
			keys[relay] = key
		}
		id := ticket.Session(key, p.A, p.B, h.tickets.ends)
		to.Send(wire.Ticket{
			Session: id, Leg: uint8(side), Secret: ticket.Secret(key, id, uint8(side)), Peer: []string{p.B, p.A}[side],
			Relay: access, Transports: set,
		})
	}
}
