package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
)

// holds takes a relay's word for a session that it still holds from before its
// connection. One of ours is confirmed by it. Any other was opened by a server
// before us and is taken up, if it may be: a grant must join its portals, and
// there must be no session of the pair that we have opened since, nor a
// younger one at the same relay. What may not be ends at that relay, of which
// its portals hear when their legs do; a relay cannot touch with its word what
// another one holds, nor make us write to portals or to the disk.
func (b *Broker) holds(now time.Time, r *relay, h wire.HeldSession) {
	if s := b.sessions[h.ID]; s != nil {
		if s.relay == r.name {
			s.confirmed = true
		}
		return
	}
	if _, over := b.ending[h.ID]; over {
		return // the relay was told, and will answer
	}
	s := &session{
		id: h.ID, open: true, held: true, confirmed: true, names: h.Portals, relay: r.name,
		opened: now.Add(-time.Duration(h.Age) * time.Second), able: h.Transports, transports: h.Transports,
	}
	x, y := h.Portals[0], h.Portals[1]
	if !b.grants.Joined(x, y, now) {
		b.toRelay(r.name, wire.EndSession{ID: h.ID, Reason: wire.ReasonGrantRemoved})
		return
	}
	for _, other := range slices.Clone(b.byPair[couple.Of(x, y)]) {
		switch {
		case other.held && other.relay != r.name:
		case other.held && other.opened.Before(s.opened):
			b.remove(other)
			b.toRelay(r.name, wire.EndSession{ID: other.id, Reason: wire.ReasonReplaced})
		default:
			b.toRelay(r.name, wire.EndSession{ID: h.ID, Reason: wire.ReasonReplaced})
			return
		}
	}
	b.add(s)
}
