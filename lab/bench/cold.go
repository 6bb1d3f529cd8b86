package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// roundTrip is that between the two portals by way of a relay, in the settings for cold starts: half of it lies before
// each NAT.
const roundTrip = 50 * time.Millisecond

func coldSetting(name string, rules ...topo.Rule) setting {
	half := link.Shape{Delay: roundTrip / 4}
	return setting{name: name, lineA: half, lineB: half, rules: rules}
}

// coldExperiment measures the way of the first byte of an application's connection, from its connect to the service, in
// round trips: of the first connection behind a start of the entry portal, and of one behind it. It is taken by the one
// clock of this program, which holds both ends, so that what the portals take to start their work counts.
func coldExperiment(over string, first, next target) func(w *world) (comparison, error) {
	return func(w *world) (comparison, error) {
		via, err := w.netport()
		if err != nil {
			return comparison{}, err
		}
		own := contender{name: netportName, measure: func() ([]float64, error) {
			w.entry.Restart()
			w.waitUp()
			cold, err := w.firstByte(via)
			if err != nil {
				return nil, err
			}
			warm, err := w.firstByte(via)
			return []float64{cold, warm}, err
		}}
		return comparison{mode: w.netportMode, contenders: []contender{own}, quantities: []quantity{
			{what: "cold start, " + over, unit: trips, own: first},
			{what: "next one, " + over, unit: trips, own: next},
		}}, nil
	}
}

// firstByte is how long the first byte of a new connection takes, in round trips.
func (w *world) firstByte(via way) (float64, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	start := time.Now()
	conn, err := w.client.DialContext(ctx, "tcp", netip.MustParseAddrPort(via.addr(firstPort)))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{1}); err != nil {
		return 0, err
	}
	select {
	case at := <-w.services.first:
		return at.Sub(start).Seconds() / roundTrip.Seconds(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("the first byte did not reach the service: %w", ctx.Err())
	}
}
