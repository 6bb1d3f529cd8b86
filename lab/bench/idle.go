package main

import (
	"encoding/json"
	"fmt"
	"time"
)

const day = 24 * time.Hour

// idleTime is for how long an idle portal is watched: twice its keepalive's time and some.
const idleTime = 10 * time.Minute

// idleExperiment counts what a portal that nobody uses sends and gets on its interface, Ethernet headers included, and
// reckons what that is in a day.
func idleExperiment(w *world) (comparison, error) {
	if _, err := w.netport(); err != nil {
		return comparison{}, err
	}
	measure := func() ([]float64, error) {
		w.entry.Restart() // no tunnel is left
		w.waitUp()
		watched := idleTime
		if w.options.quick {
			watched /= 10
		}
		<-time.After(patience) // what it says once behind a start
		before, err := w.carried()
		if err != nil {
			return nil, err
		}
		<-time.After(watched)
		after, err := w.carried()
		return []float64{float64(after-before) * day.Seconds() / watched.Seconds()}, err
	}
	return comparison{rounds: 1, contenders: []contender{{netportName, measure}}, quantities: []quantity{
		{what: "idle portal, a day", unit: size, own: target{atMost: 100e3}},
	}}, nil
}

// carried is how many bytes the client's interface has sent and got.
func (w *world) carried() (uint64, error) {
	var links []struct {
		Stats struct{ RX, TX struct{ Bytes uint64 } } `json:"stats64"`
	}
	out := w.client.Run("ip", "-json", "-statistics", "link", "show", w.client.Device())
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return 0, err
	}
	if len(links) != 1 {
		return 0, fmt.Errorf("want one interface in %s", out)
	}
	return links[0].Stats.RX.Bytes + links[0].Stats.TX.Bytes, nil
}
