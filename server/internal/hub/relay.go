package hub

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/registry"
)

// resolveTime bounds the look-up of a relay's names.
const resolveTime = 5 * time.Second

// MeetRelay lets a relay in that has proven itself. It returns what serves the relay
// until it is gone; nil: it was refused, and told so.
func (h *Hub) MeetRelay(ctx context.Context, a *control.Accepted, from string) (serve func()) {
	name := a.Peer.ID.Name
	h.admit(a.Peer)
	enrolled, ok := h.registry.Relay(name)
	if !ok || !enrolled.Holds(a.Peer.Key) {
		h.refuse(a, from, wire.ReasonRevoked, unknownKey)
		return nil
	}
	addresses, err := resolve(ctx, enrolled)
	if err != nil {
		h.log.Error("relay cannot be used", "relay", name, "error", err)
		h.refuse(a, from, wire.ReasonInternal, err.Error())
		return nil
	}
	conn := control.WelcomeRelay(a, h.welcome(from), h.log)
	c := &connection[wire.ToRelay]{
		link: conn, peer: a.Peer, presented: a.Presented, address: addrPortOf(conn.RemoteAddr()),
		over: overOf(conn.LocalAddr()), software: a.Hello.Software, since: time.Now(),
	}
	if reason, text := h.enterRelay(c, addresses); reason != wire.ReasonNone {
		h.recordRefusal(a.Peer, from, reason)
		conn.Close(reason, text)
		conn.Run(ctx, func(wire.FromRelay) error { return nil })
		return nil
	}
	h.log.Info("relay connected", "relay", name, "from", from, "software", c.software)
	h.settleKey(a.Peer)
	return func() {
		err := conn.Run(ctx, func(m wire.FromRelay) error { return h.fromRelay(ctx, c, m) })
		h.leaveRelay(c)
		h.left(identity.Relay, err)
		h.log.Info("relay gone", "relay", name, "from", from, "reason", reasonText(err))
		c.renewal.wait()
	}
}

// resolve returns the addresses that portals are sent to: those that the
// operator gave, and what the names among them mean now.
func resolve(ctx context.Context, r registry.Relay) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var list []netip.Addr
	for _, s := range r.Addresses {
		if a, err := netip.ParseAddr(s); err == nil {
			list = append(list, a)
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", s)
		if err != nil {
			return nil, fmt.Errorf("look up the relay's address %q: %w", s, err)
		}
		for _, a := range found {
			list = append(list, a.Unmap())
		}
	}
	if len(list) > wire.MaxAddresses {
		list = list[:wire.MaxAddresses]
	}
	return list, nil
}

func (h *Hub) enterRelay(c *connection[wire.ToRelay], addresses []netip.Addr) (wire.Reason, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := c.peer.ID.Name
	if r, ok := h.registry.Relay(name); !ok || !r.Holds(c.peer.Key) {
		return wire.ReasonRevoked, unknownKey
	}
	if old := h.relays[name]; old != nil {
		if !takeOver(h, old, c) {
			return wire.ReasonBusy, takenText
		}
		h.broker.RelayDown(c.since, name)
	}
	h.relays[name] = c
	h.broker.RelayUp(c.since, name, addresses)
	tellAuthorities(c, h.identities.Authorities())
	c.link.Send(wire.TicketKeys{Keys: h.keys.Of(name, c.since)})
	return wire.ReasonNone, ""
}

func (h *Hub) leaveRelay(c *connection[wire.ToRelay]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.relayGone(c)
}

// dropRelay closes the connection of a relay, which is gone at once.
func (h *Hub) dropRelay(c *connection[wire.ToRelay], text string) {
	c.link.Close(wire.ReasonRevoked, text)
	h.relayGone(c)
}

// relayGone forgets a connection. The mutex is held.
func (h *Hub) relayGone(c *connection[wire.ToRelay]) {
	if name := c.peer.ID.Name; h.relays[name] == c {
		delete(h.relays, name)
		h.broker.RelayDown(time.Now(), name)
		h.tellRelays()
	}
}

// tellRelays tells all portals when the first relay has come or the last has
// gone. The mutex is held.
func (h *Hub) tellRelays() {
	ready := h.broker.HasRelay()
	if ready == h.hasRelay {
		return
	}
	h.hasRelay = ready
	for _, c := range h.portals {
		c.link.Send(wire.RelayState{Ready: ready})
	}
}

func (h *Hub) fromRelay(ctx context.Context, c *connection[wire.ToRelay], m wire.FromRelay) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := c.peer.ID.Name
	if h.relays[name] != c {
		return nil
	}
	now := time.Now()
	switch m := m.(type) {
	case wire.RevocationsHeld:
		tellRevocations(h, c, m.Epoch)
		return nil
	case wire.Renew:
		renew(ctx, h, c, m)
		return nil
	case wire.RelayReady:
		if m.SharedTCP == 0 && len(m.Sessions) < wire.MaxHeld {
			h.log.Warn("relay has no shared TCP port: portals cannot measure it, and may not meet there while no server is there; set shared_tcp_port in its configuration", "relay", name)
		}
	case wire.RelayDraining:
		h.log.Info("relay drains: its sessions move", "relay", name)
	}
	h.broker.FromRelay(now, name, m)
	h.tellRelays()
	h.notePlaces(now)
	return nil
}
