package main

import (
	"context"

	"github.com/netport/netport/proto/leg"
)

// startLegs makes UDP flows over the relay: a session for each, whose legs are bound by the client's socket and by the
// service's.
func (w *world) startLegs() (flows, error) {
	b, err := w.broker()
	if err != nil {
		return flows{}, err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	f := flows{name: netportName, service: w.service.ListenUDP(0)}
	for range maxFlows {
		s, err := b.open()
		if err != nil {
			return flows{}, err
		}
		if _, err := leg.NewBinder(leg.ID{Session: s.id, Leg: 1}, s.secrets[1], 0).Exchange(ctx, f.service, s.udp); err != nil {
			return flows{}, err
		}
		bound := w.client.ListenUDP(0)
		if _, err := leg.NewBinder(leg.ID{Session: s.id, Leg: 0}, s.secrets[0], 0).Exchange(ctx, bound, s.udp); err != nil {
			return flows{}, err
		}
		f.client = append(f.client, flow{conn: bound, to: s.udp})
	}
	return f, nil
}
