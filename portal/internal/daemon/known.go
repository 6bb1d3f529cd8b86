package daemon

import "github.com/netport/netport/proto/wire"

// Known is what a running portal tells "netport-portal doctor".
type Known struct {
	Status Status            `json:"status"`
	Relays []wire.RelayPlace `json:"relays"`
	// InUse are the sessions of the tickets that it waits or meets with now, in hexadecimal.
	InUse []string `json:"in_use"`
}

// known returns what the portal knows.
func (p *Portal) known() Known {
	return Known{Status: p.Status(), Relays: p.client.Relays(), InUse: p.pool.TicketsInUse()}
}
