package hub

import (
	"net/netip"
	"time"

	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/registry"
)

// PortalView is a portal as the operator is shown it.
type PortalView struct {
	registry.Portal
	Online   bool           `json:"online"`
	From     netip.AddrPort `json:"from,omitzero"`
	Since    time.Time      `json:"since,omitzero"`
	Software string         `json:"software,omitempty"`
	Grants   int            `json:"grants"`
	Contest  *Contest       `json:"contest,omitempty"`
}

// Portals returns all enrolled portals, by name.
func (h *Hub) Portals() []PortalView {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []PortalView{}
	now := time.Now()
	for _, p := range h.registry.Portals() {
		v := PortalView{Portal: p, Grants: len(h.registry.Of(p.Name, now))}
		if c := h.portals[p.Name]; c != nil {
			v.Online, v.From, v.Since, v.Software = true, c.address, c.since, c.software
			v.Contest = h.contestOf(c.peer.ID, now)
		}
		list = append(list, v)
	}
	return list
}

// RelayView is a relay as the operator is shown it.
type RelayView struct {
	registry.Relay
	Online   bool              `json:"online"`
	From     netip.AddrPort    `json:"from,omitzero"`
	Software string            `json:"software,omitempty"`
	State    *broker.RelayView `json:"state,omitempty"` // of one that is connected
	Contest  *Contest          `json:"contest,omitempty"`
}

// Relays returns all enrolled relays, by name.
func (h *Hub) Relays() []RelayView {
	h.mu.Lock()
	defer h.mu.Unlock()
	states := make(map[string]broker.RelayView)
	for _, s := range h.broker.Relays() {
		states[s.Name] = s
	}
	list := []RelayView{}
	for _, r := range h.registry.Relays() {
		v := RelayView{Relay: r}
		if c := h.relays[r.Name]; c != nil {
			v.Online, v.From, v.Software = true, c.address, c.software
			v.Contest = h.contestOf(c.peer.ID, time.Now())
			if s, ok := states[r.Name]; ok {
				v.State = &s
			}
		}
		list = append(list, v)
	}
	return list
}

// Sessions returns all sessions.
func (h *Hub) Sessions() []broker.SessionView {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.broker.Sessions(time.Now())
}
