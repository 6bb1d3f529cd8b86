package hub

import (
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
	"github.com/netport/netport/server/internal/registry"
)

// Changed makes a change of the registry known to those it concerns. Exit
// portals hear of what was taken back before entry portals do: it is the exit
// that enforces. Then sessions end whose portals no grant joins any more.
func (h *Hub) Changed(d registry.Diff) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.dropOldKeys(now)
	h.takeBack(now, d.Removed)
	concerned := make(map[string]bool)
	for _, p := range d.Removed {
		concerned[p.Entry.Name], concerned[p.Exit.Name] = true, true
	}
	for _, end := range []func(grant.Permission) string{exitOf, entryOf} {
		for _, p := range d.Added {
			name := end(p)
			concerned[name] = true
			c := h.portals[name]
			g, ok := h.registry.Grant(p.ID())
			if c == nil || !ok {
				continue
			}
			h.put(c, g, now)
			peer := otherOf(p, name)
			c.link.Send(wire.PeerState{Name: peer, Online: h.portals[peer] != nil})
			h.owe(name, peer, "")
		}
	}
	complete := h.registry.Applied().Complete()
	for name := range concerned {
		if c := h.portals[name]; c != nil {
			c.link.Send(complete)
		}
	}
	h.broker.Repin(now)
	h.notePins(now)
}

func exitOf(p grant.Permission) string  { return p.Exit.Name }
func entryOf(p grant.Permission) string { return p.Entry.Name }

// takeBack removes grants from the portals that hold them.
func (h *Hub) takeBack(now time.Time, list []grant.Permission) {
	why := func(p grant.Permission) wire.Reason {
		if registry.Ended(p, now) {
			return wire.ReasonGrantExpired
		}
		return wire.ReasonGrantRemoved
	}
	for _, end := range []func(grant.Permission) string{exitOf, entryOf} {
		for _, p := range list {
			id := p.ID()
			delete(h.stamped, id)
			if c := h.portals[end(p)]; c != nil {
				delete(c.until, id)
				c.link.Send(wire.RemoveGrant{Grant: id, Reason: why(p)})
			}
		}
	}
	for _, p := range list {
		h.broker.Unjoined(now, p.Entry.Name, p.Exit.Name, why(p))
		if !h.registry.Joined(p.Entry.Name, p.Exit.Name, now) {
			delete(h.tickets.standing, couple.Of(p.Entry.Name, p.Exit.Name))
		}
	}
}

// dropOldKeys ends all that belongs to keys which were replaced.
func (h *Hub) dropOldKeys(now time.Time) {
	for name, c := range h.portals {
		if p, ok := h.registry.Portal(name); !ok || !p.Holds(c.peer.Key) {
			h.log.Warn("portal's key was replaced or revoked", "portal", name, "from", c.address)
			h.broker.Revoke(now, name)
			h.dropPortal(c, whyDropped(ok))
		}
	}
	for name, c := range h.relays {
		if r, ok := h.registry.Relay(name); !ok || !r.Holds(c.peer.Key) {
			h.log.Warn("relay's key was replaced or revoked", "relay", name, "from", c.address)
			if !ok { // what it holds moves, make before break: it sees nothing but TLS
				h.broker.FromRelay(now, name, wire.RelayDraining{})
			}
			h.dropRelay(c, whyDropped(ok))
		}
	}
}

// whyDropped is what a peer is told whose key counts no more.
func whyDropped(enrolled bool) string {
	if enrolled {
		return unknownKey
	}
	return revokedText
}

// maxRestamps is how many grants are sent with a fresh stamp in one look. After
// a restart of the server all portals come back within seconds, and so all stamps
// would be made anew in one moment twelve hours later. They have twelve hours for it;
// 200,000 take 50 minutes.
const maxRestamps = 2000

// care looks over what ages: ticket keys, stamps, grants and certificates.
func (h *Hub) care(now time.Time) {
	if err := h.keys.Rotate(now); err != nil { // on disk first, and not under the mutex
		h.log.Error("ticket key not changed", "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.takeBack(now, h.registry.EndedBetween(h.ended, now))
	h.ended = now
	h.age(now)
	for id, at := range h.switched {
		if now.Sub(at) >= switchTime {
			delete(h.switched, id)
		}
	}
	restamps := 0
	for name, c := range h.portals {
		if now.After(c.peer.NotAfter) {
			h.log.Warn("portal's certificate has ended", "portal", name, "ended", c.peer.NotAfter)
			h.dropPortal(c, endedText)
			continue
		}
		askForKey(h, c, now)
		for id, until := range c.until {
			if restamps == maxRestamps || !stale(until, now) {
				continue
			}
			if g, ok := h.registry.Grant(id); ok {
				h.put(c, g, now)
				restamps++
			}
		}
	}
	for name, c := range h.relays {
		if now.After(c.peer.NotAfter) {
			h.log.Warn("relay's certificate has ended", "relay", name, "ended", c.peer.NotAfter)
			h.dropRelay(c, endedText)
			continue
		}
		askForKey(h, c, now)
	}
}

const endedText = "this certificate has ended; have it issued anew"
