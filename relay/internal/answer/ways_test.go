package answer

import (
	"fmt"
	"testing"
	"time"
)

// Each way between a portal and the relay takes 10 ms. After the last SYN the
// opener is connected when that SYN and its SYN-ACK have come, without waiting
// for anything of the other leg, which is connected two ways later and hears the
// opener's first message at once. So it is whoever dialled first.
func TestOpenerWaitsForNoProofOfTheOtherLeg(t *testing.T) {
	const way, apart = 10 * ms, 70 * ms
	for _, double := range []float64{0, 1} {
		for first, name := range []string{"the opener", "the other"} {
			t.Run(fmt.Sprintf("%s dials first, doubled %v", name, double), func(t *testing.T) {
				w := newWorld(t, 1)
				w.double, w.healed = double, start.Add(time.Minute)
				client, server := w.ends[0], w.ends[1]
				server.late = true
				w.after(0, w.ends[first].dial)
				w.after(apart, w.ends[1-first].dial)
				if !w.run(5 * time.Second) {
					t.Fatal("not connected")
				}
				last := start.Add(apart)
				for _, c := range []struct {
					what string
					at   time.Time
					ways time.Duration
				}{
					{"the opener is connected", client.since, 2},
					{"the other leg is connected", server.since, 4},
					{"the other leg hears the opener", server.heard, 4},
				} {
					if took := c.at.Sub(last); took != c.ways*way {
						t.Errorf("%s %v after the last SYN, want %d ways: %v", c.what, took, c.ways, c.ways*way)
					}
				}
			})
		}
	}
}
