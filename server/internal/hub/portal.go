package hub

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
)

// unknownKey is what a peer is told whose certificate is ours and whose key is
// not the one of its name.
const unknownKey = "this certificate is not the one that is enrolled for its name; have it issued anew"

// MeetPortal lets a portal in that has proven itself. It returns what serves the portal
// until it is gone; nil: it was refused, and told so.
func (h *Hub) MeetPortal(ctx context.Context, a *control.Accepted, from string) (serve func()) {
	name := a.Peer.ID.Name
	h.admit(a.Peer)
	if p, ok := h.registry.Portal(name); !ok || !p.Holds(a.Peer.Key) {
		h.refuse(a, from, wire.ReasonRevoked, unknownKey)
		return nil
	}
	conn := control.WelcomePortal(a, h.welcome(from), h.log)
	c := &connection[wire.ToPortal]{
		link: conn, peer: a.Peer, presented: a.Presented, address: addrPortOf(conn.RemoteAddr()),
		over: overOf(conn.LocalAddr()), software: a.Hello.Software,
		since: time.Now(), until: make(map[wire.GrantID]time.Time),
	}
	if reason, text := h.enterPortal(c); reason != wire.ReasonNone {
		h.recordRefusal(a.Peer, from, reason)
		conn.Close(reason, text)
		conn.Run(ctx, func(wire.FromPortal) error { return nil })
		return nil
	}
	h.log.Info("portal connected", "portal", name, "from", from, "software", c.software)
	h.settleKey(a.Peer)
	return func() {
		err := conn.Run(ctx, func(m wire.FromPortal) error { return h.fromPortal(ctx, c, m) })
		h.portalLeft(c, from, err)
	}
}

// portalLeft takes that a connection has ended, and waits for what it had under way.
func (h *Hub) portalLeft(c *connection[wire.ToPortal], from string, err error) {
	h.leavePortal(c)
	h.left(identity.Portal, err)
	h.log.Info("portal gone", "portal", c.peer.ID.Name, "from", from, "reason", reasonText(err))
	c.renewal.wait()
}

func (h *Hub) welcome(from string) wire.Welcome {
	at, _ := netip.ParseAddrPort(from) // else it is not known
	return wire.Welcome{
		Version: wire.ControlVersion, Time: uint64(time.Now().Unix()),
		Stamp: []ed25519.PublicKey{h.stamp.Public().(ed25519.PublicKey)}, Seen: at.Addr(),
	}
}

// refuse turns a proven peer away.
func (h *Hub) refuse(a *control.Accepted, from string, reason wire.Reason, text string) {
	h.recordRefusal(a.Peer, from, reason)
	a.Refuse(reason, text)
}

func (h *Hub) recordRefusal(p identity.Peer, from string, reason wire.Reason) {
	h.audit.Write(audit.Record{Event: "connect", Answer: audit.Refused, Portal: p.ID.Name, From: from, Reason: reason.String(), Detail: string(p.ID.Role) + ", key " + p.Key.String()})
	h.log.Warn("connection refused", "peer", p.ID, "from", from, "reason", reason.String())
}

// enterPortal makes c the connection of its portal and tells it all it needs to
// know. It returns a reason if it must not.
func (h *Hub) enterPortal(c *connection[wire.ToPortal]) (wire.Reason, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := c.peer.ID.Name
	// The key may have been replaced since it was compared.
	if p, ok := h.registry.Portal(name); !ok || !p.Holds(c.peer.Key) {
		return wire.ReasonRevoked, unknownKey
	}
	if old := h.portals[name]; old != nil {
		if !takeOver(h, old, c) {
			return wire.ReasonBusy, takenText
		}
	}
	h.portals[name] = c
	h.broker.PortalUp(name, c.address.Addr())
	tellAuthorities(c, h.identities.Authorities())
	peers := make(map[string]bool)
	for _, g := range h.registry.Of(name, c.since) {
		h.put(c, g, c.since)
		peers[otherOf(g.Permission, name)] = true
	}
	c.link.Send(h.registry.Applied().Complete())
	if h.hasRelay {
		c.link.Send(wire.RelayState{Ready: true})
	}
	for peer := range peers {
		other := h.portals[peer]
		c.link.Send(wire.PeerState{Name: peer, Online: other != nil})
		if other != nil {
			other.link.Send(wire.PeerState{Name: name, Online: true})
		}
		h.owe(name, peer, name)
	}
	if len(h.servers) > 0 {
		c.link.Send(wire.Servers{Addresses: h.servers})
	}
	if len(h.places) > 0 {
		c.link.Send(wire.Relays{Relays: h.places})
	}
	return wire.ReasonNone, ""
}

func (h *Hub) leavePortal(c *connection[wire.ToPortal]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.portalGone(c)
}

// dropPortal closes the connection of a portal, which is gone at once.
func (h *Hub) dropPortal(c *connection[wire.ToPortal], text string) {
	c.link.Close(wire.ReasonRevoked, text)
	h.portalGone(c)
}

// portalGone forgets a connection. The mutex is held.
func (h *Hub) portalGone(c *connection[wire.ToPortal]) {
	name := c.peer.ID.Name
	if h.portals[name] != c {
		return // another has taken its place
	}
	delete(h.portals, name)
	h.broker.PortalDown(name)
	told := make(map[string]bool)
	for _, g := range h.registry.Of(name, time.Now()) {
		peer := otherOf(g.Permission, name)
		if other := h.portals[peer]; other != nil && !told[peer] {
			other.link.Send(wire.PeerState{Name: name, Online: false})
		}
		told[peer] = true
	}
}

// fromPortal handles one message. What an older connection still says does not
// count.
func (h *Hub) fromPortal(ctx context.Context, c *connection[wire.ToPortal], m wire.FromPortal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := c.peer.ID.Name
	if h.portals[name] != c {
		return nil
	}
	switch m := m.(type) {
	case wire.OpenSession:
		h.broker.Open(time.Now(), name, m)
	case wire.SessionDone:
		h.broker.Done(time.Now(), name, m)
	case wire.RelayTimes:
		h.broker.Times(name, m)
		if !c.measured {
			c.measured = true
			h.owePeers(name, time.Now())
		}
	case wire.RevocationsHeld:
		tellRevocations(h, c, m.Epoch)
	case wire.Renew:
		renew(ctx, h, c, m)
	default:
		return fmt.Errorf("a message of type %d does not belong here", m.Type())
	}
	return nil
}

// put sends a grant, stamped.
func (h *Hub) put(c *connection[wire.ToPortal], g grant.Grant, now time.Time) {
	id := g.ID()
	fresh, ok := h.stamped[id]
	if !ok || stale(fresh.Until, now) {
		fresh = g.Stamp(h.stamp, now)
		h.stamped[id] = fresh
	}
	c.until[id] = fresh.Until
	c.link.Send(wire.PutGrant{Grant: fresh.AppendTo(nil)})
}

// stale reports whether a stamp has lived half its life.
func stale(until, now time.Time) bool { return until.Sub(now) < grant.StampLife/2 }

func otherOf(p grant.Permission, name string) string {
	if p.Entry.Name == name {
		return p.Exit.Name
	}
	return p.Entry.Name
}

func reasonText(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}
