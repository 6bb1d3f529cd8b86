package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const day = 24 * time.Hour

// idleTime is for how long an idle portal is watched: twice its keepalive's time and some.
const idleTime = 10 * time.Minute

// idleExperiment counts the IP packets that a portal that nobody uses sends and gets on its interface, headers included,
// and reckons what that is in a day.
func idleExperiment(w *world) (comparison, error) {
	if _, err := w.netport(); err != nil {
		return comparison{}, err
	}
	measure := func() ([]float64, error) {
		w.entry.Restart() // no tunnel is left
		w.waitUp()
		return w.idle()
	}
	return comparison{rounds: 1, contenders: []contender{{netportName, measure}}, quantities: []quantity{
		{what: "idle portal, a day", unit: size, own: target{atMost: 100e3}},
	}}, nil
}

// idle is how many bytes a day come to what is sent and got from now on.
func (w *world) idle() ([]float64, error) {
	watched := idleTime
	if w.options.quick {
		watched /= 10
	}
	<-time.After(patience) // what is said once behind a start
	carried, err := w.countCarried()
	if err != nil {
		return nil, err
	}
	<-time.After(watched)
	bytes, err := carried()
	return []float64{float64(bytes) * day.Seconds() / watched.Seconds()}, err
}

// countCarried counts from now on the bytes of TCP and UDP that the client's machine sends and gets.
func (w *world) countCarried() (count func() (uint64, error), err error) {
	rules := w.client.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(`table inet idle {
		counter carried { }
		chain in { type filter hook input priority filter; iifname != "lo" meta l4proto { tcp, udp } counter name carried; }
		chain out { type filter hook output priority filter; oifname != "lo" meta l4proto { tcp, udp } counter name carried; }
	}`)
	if out, err := rules.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("count what is carried: %w: %s", err, out)
	}
	return func() (uint64, error) {
		var listed struct {
			Nftables []struct{ Counter *struct{ Bytes uint64 } }
		}
		out := w.client.Run("nft", "-json", "list", "counter", "inet", "idle", "carried")
		if err := json.Unmarshal([]byte(out), &listed); err != nil {
			return 0, err
		}
		for _, object := range listed.Nftables {
			if object.Counter != nil {
				return object.Counter.Bytes, nil
			}
		}
		return 0, fmt.Errorf("no counter in %s", out)
	}, nil
}
