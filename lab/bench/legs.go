package main

import (
	"context"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"
)

// startLegs makes UDP flows over the relay in user space: a session for each, whose legs are bound by the client's socket
// and by the service's.
func (w *world) startLegs() (flows, error) {
	relay, err := w.userRelay()
	if err != nil {
		return flows{}, err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	f := flows{name: netportName, service: w.service.ListenUDP(0)}
	for range maxFlows {
		s := relay.open(wire.TransportUDP)
		at := relay.at(s.Ready.UDP)
		if _, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: s.ID, Leg: 1}, s.Secrets[1], 0), f.service, at); err != nil {
			return flows{}, err
		}
		bound := w.client.ListenUDP(0)
		if _, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: s.ID, Leg: 0}, s.Secrets[0], 0), bound, at); err != nil {
			return flows{}, err
		}
		f.client = append(f.client, flow{conn: bound, to: at})
	}
	return f, nil
}
