package control

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

const (
	// maxTicketPeers bounds the peers whose tickets are kept, and maxTicketRelays
	// the relays of each.
	maxTicketPeers  = 4096
	maxTicketRelays = 3
)

// Tickets returns the tickets that hold now, of peers with which a grant joins
// this portal now.
func (c *Client) Tickets() Tickets { return Tickets{c} }

// Tickets are the standing sessions for the time without a server.
type Tickets struct{ client *Client }

// For returns the tickets with a peer.
func (t Tickets) For(peer string) []wire.Ticket {
	if _, joined := t.client.Grants.Joined(peer); !joined {
		return nil
	}
	t.client.mu.Lock()
	defer t.client.mu.Unlock()
	return t.client.tickets.of(t.client.Credentials.Now(), peer)
}

// Peers returns the names of the peers with which there are tickets.
func (t Tickets) Peers() []string {
	joined := t.client.Grants.Peers()
	t.client.mu.Lock()
	defer t.client.mu.Unlock()
	now := t.client.Credentials.Now()
	return slices.DeleteFunc(joined, func(peer string) bool { return len(t.client.tickets.of(now, peer)) == 0 })
}

// tickets holds the tickets of each peer, one a relay. A ticket that is over is
// as good as none.
type tickets map[string][]wire.Ticket

// newTickets returns the tickets of a list that still hold.
func newTickets(now time.Time, list []wire.Ticket) tickets {
	t := make(tickets)
	for _, m := range list {
		t.put(now, m)
	}
	return t
}

// put takes a ticket in the place of an older one of its peer and relay. It
// reports false for one that is over or finds no room.
func (t tickets) put(now time.Time, m wire.Ticket) bool {
	if !holds(now, m) {
		return false
	}
	list, known := t[m.Peer]
	list = slices.DeleteFunc(list, func(old wire.Ticket) bool {
		return old.Relay.Name == m.Relay.Name || !holds(now, old)
	})
	room := len(list) < maxTicketRelays && (known || len(t) < maxTicketPeers)
	if room {
		list = append(list, m)
	}
	if len(list) > 0 {
		t[m.Peer] = list
	}
	return room
}

// of returns the tickets with a peer.
func (t tickets) of(now time.Time, peer string) []wire.Ticket {
	var list []wire.Ticket
	for _, m := range t[peer] {
		if holds(now, m) {
			list = append(list, m)
		}
	}
	return list
}

// all returns every ticket, in an order that stays.
func (t tickets) all(now time.Time) []wire.Ticket {
	var list []wire.Ticket
	for peer := range t {
		list = append(list, t.of(now, peer)...)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Relay.Name, b.Relay.Name), bytes.Compare(a.Session[:], b.Session[:])) < 0
	})
	return list
}

// only drops the tickets with all but these peers, which are in order.
func (t tickets) only(peers []string) {
	for peer := range t {
		if _, found := slices.BinarySearch(peers, peer); !found {
			delete(t, peer)
		}
	}
}

func holds(now time.Time, m wire.Ticket) bool {
	ends, isTicket := ticket.Ends(m.Session)
	return isTicket && now.Before(ends)
}
