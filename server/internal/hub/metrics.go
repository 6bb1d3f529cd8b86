package hub

import (
	"errors"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/proto/wire"
)

// counts are what the hub counts for its metrics alone.
type counts struct {
	gone   metrics.Counts // connections of portals that ended, by why
	lost   metrics.Counts // of relays
	fights metrics.Counts // of two machines with one identity, by role
}

// left counts the end of a connection.
func (h *Hub) left(role identity.Role, err error) {
	n := &h.counts.gone
	if role == identity.Relay {
		n = &h.counts.lost
	}
	n.Add(endOf(err))
}

// endOf says in a word why a connection ended.
func endOf(err error) string {
	var said *control.Goodbye
	switch {
	case err == nil:
		return "closed"
	case errors.As(err, &said):
		return "peer said " + said.Reason.String()
	case errors.Is(err, wire.ErrMalformed):
		return "malformed message"
	}
	return "cut"
}

// Metrics adds who is connected, and what has ended, to a page.
func (h *Hub) Metrics(p *metrics.Page) {
	h.mu.Lock()
	relays, views := len(h.relays), h.broker.Relays()
	portals := map[string]int{"tcp": 0, "udp": 0}
	for _, c := range h.portals {
		portals[c.over.Transport]++
	}
	sessions := make(map[string]int) // by state
	for _, s := range h.broker.Sessions(time.Now()) {
		sessions[s.State]++
	}
	h.mu.Unlock()
	connected := p.Gauge("portals_connected", "Portals that are connected, over TCP, or over QUIC where TCP is shut (udp).")
	for transport, n := range portals {
		connected.Set(float64(n), "transport", transport)
	}
	p.Gauge("relays_connected", "Relays that are connected.").Set(float64(relays))
	open := p.Gauge("sessions", "Sessions of two portals at a relay: asking the relay, open, or leaving it.")
	for _, state := range []string{"asking", "open", "leaving"} {
		open.Set(float64(sessions[state]), "state", state)
	}
	ends := p.Counter("disconnects_total", "Connections of portals and relays that ended, by why.")
	ends.AddAll(h.counts.gone.All(), "reason", "role", string(identity.Portal))
	ends.AddAll(h.counts.lost.All(), "reason", "role", string(identity.Relay))
	fights := p.Counter("identity_conflicts_total", "How often a second machine came with an identity that another had just taken over.")
	for _, role := range []identity.Role{identity.Portal, identity.Relay} {
		fights.Add(h.counts.fights.All()[string(role)], "role", string(role))
	}
	ready := p.Gauge("relay_ready", "Whether a connected relay takes sessions.")
	held := p.Gauge("relay_sessions", "Sessions at a relay, by its own word.")
	room := p.Gauge("relay_sessions_capacity", "How many sessions a relay may hold.")
	median := p.Gauge("relay_round_trip_seconds", "Median of the round trips to a relay that portals have measured.")
	silent := p.Gauge("relay_silent_portals", "Connected portals that a relay did not answer.")
	for _, r := range views {
		ready.Is(r.Ready && !r.Draining, "relay", r.Name)
		held.Set(float64(r.Sessions), "relay", r.Name)
		room.Set(float64(r.Capacity), "relay", r.Name)
		silent.Set(float64(r.Silent), "relay", r.Name)
		if r.Measured > 0 {
			median.Set(float64(r.Median)/1000, "relay", r.Name)
		}
	}
}
