package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
)

// A session leaves its relay when that is about to stop, or when the policy has
// come to want the pair elsewhere. Make before break: a successor is asked for
// at another relay, both portals are told it (Session with Replaces), and the old
// session stays open until a portal says that it is done with it, or the relay
// that it is over.
//
// The oldest go first. Nobody here knows what a session carries: the relay alone
// counts that, and says it at the end. What has been open for long is what has
// most likely been built upon, and a relay that is stopped before all have
// moved then cuts the youngest.
//
// A session whose portals are not both connected stays until they are: they could
// not be told. So does one that no other relay takes; it is tried again.

const (
	// moveRate is how many sessions begin to move in a second: each makes two
	// portals open connections and handshake, and their new relays with them. A
	// relay of the default capacity is empty in 20 s.
	moveRate = 200
	// movePause is how long a session stays alone that no relay would take over.
	movePause = 5 * time.Second
	// misplacedTime is how long a session may be where the policy does not want
	// it any more, until it has moved: it ends then.
	misplacedTime = 15 * time.Second
)

// drain empties a relay that is about to stop.
func (b *Broker) drain(now time.Time, r *relay) {
	r.draining = true
	for _, s := range b.sessions {
		if s.relay == r.name && !s.open {
			b.toRelay(r.name, wire.EndSession{ID: s.id, Reason: wire.ReasonShutdown})
			b.again(now, s)
		}
	}
	b.moveSome(now)
}

// Repin moves the sessions that the policy, which has changed, wants elsewhere.
func (b *Broker) Repin(now time.Time) {
	for _, s := range b.sessions {
		pin := b.grants.Pin(s.names[0], s.names[1], now)
		switch {
		case pin == "" || pin == s.relay:
			s.misplaced = time.Time{}
		case !s.open:
			b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonReplaced})
			b.again(now, s)
		case s.misplaced.IsZero():
			s.misplaced = now.Add(misplacedTime)
		}
	}
	b.moveSome(now)
}

// moveSome begins as many moves as are due and allowed.
func (b *Broker) moveSome(now time.Time) {
	var due []*session
	for _, s := range b.sessions {
		if s.open && !s.left && b.leaves(s) && !now.Before(s.pause) && b.bothOnline(s) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(x, y *session) int {
		if c := x.opened.Compare(y.opened); c != 0 {
			return c
		}
		return slices.Compare(x.id[:], y.id[:])
	})
	for _, s := range due {
		if b.moves == 0 {
			return
		}
		b.move(now, s)
	}
}

func (b *Broker) leaves(s *session) bool {
	r := b.relays[s.relay]
	return !s.misplaced.IsZero() || r != nil && r.draining
}

func (b *Broker) bothOnline(s *session) bool {
	for _, n := range s.names {
		if p := b.portals[n]; p == nil || !p.online {
			return false
		}
	}
	return true
}

// move asks for the successor of s, unless the pair has or awaits one.
func (b *Broker) move(now time.Time, s *session) {
	for _, other := range b.byPair[couple.Of(s.names[0], s.names[1])] {
		switch {
		case !other.open:
			return
		case other != s && !other.left && !b.leaves(other):
			s.left = true // of two that were held when we were started, one stays
			return
		}
	}
	next := &session{
		names: s.names, grant: s.grant, forward: s.forward, able: s.able,
		tried: map[string]bool{s.relay: true}, replaces: s.id,
	}
	b.moves--
	b.askOrRefuse(now, next)
}

// unwanted takes back the successor of s, which a portal has closed, unless a
// portal has asked for it.
func (b *Broker) unwanted(s *session, reason wire.Reason) {
	for _, next := range slices.Clone(b.byPair[couple.Of(s.names[0], s.names[1])]) {
		if !next.open && next.replaces == s.id && next.asked[0].number == 0 && next.asked[1].number == 0 {
			b.toRelay(next.relay, wire.EndSession{ID: next.id, Reason: reason})
			b.remove(next)
		}
	}
}

// tellAgain tells a move once more to a portal that has connected anew since: it
// may not have heard.
func (b *Broker) tellAgain(s *session) {
	if b.sessions[s.replaces] == nil {
		return
	}
	for i, n := range s.names {
		if p := b.portals[n]; p != nil && p.online && p.epoch != s.epochs[i] {
			s.epochs[i] = p.epoch
			b.tell(s, i, 0)
		}
	}
}
