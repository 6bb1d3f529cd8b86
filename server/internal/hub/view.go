package hub

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/registry"
)

// Over is what a control connection runs over.
type Over struct {
	Transport string `json:"transport"` // "tcp", or "udp": QUIC, where TCP is shut
	Port      uint16 `json:"port"`      // of the server
}

func (o Over) String() string { return fmt.Sprintf("%s %d", strings.ToUpper(o.Transport), o.Port) }

// overOf returns what a connection runs over by its address at the server.
func overOf(at net.Addr) Over { return Over{at.Network(), addrPortOf(at).Port()} }

// PortalView is a portal as the operator is shown it.
type PortalView struct {
	registry.Portal
	Online   bool           `json:"online"`
	From     netip.AddrPort `json:"from,omitzero"`
	Over     Over           `json:"over,omitzero"`
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
			v.Online, v.From, v.Over, v.Since, v.Software = true, c.address, c.over, c.since, c.software
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
	Over     Over              `json:"over,omitzero"`
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
			v.Online, v.From, v.Over, v.Software = true, c.address, c.over, c.software
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
