package survive

import (
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// lined is a world whose laptop hangs on a line that can be made bad.
func lined(line link.Shape) plan { return plan{laptop: []topo.HostOption{topo.Uplink(line)}} }

// rungs are lines from good to hardly usable.
var rungs = []link.Shape{
	{Delay: 8 * time.Millisecond, Loss: 0.001},
	{Delay: 15 * time.Millisecond, Loss: 0.005, Jitter: 2 * time.Millisecond},
	{Delay: 25 * time.Millisecond, Loss: 0.01, Jitter: 5 * time.Millisecond},
	{Delay: 40 * time.Millisecond, Loss: 0.02, Jitter: 10 * time.Millisecond},
	{Delay: 60 * time.Millisecond, Loss: 0.03, Jitter: 15 * time.Millisecond},
	{Delay: 90 * time.Millisecond, Loss: 0.05, Jitter: 20 * time.Millisecond},
	{Delay: 150 * time.Millisecond, Loss: 0.08, Jitter: 30 * time.Millisecond},
	{Delay: 225 * time.Millisecond, Burst: link.GilbertElliott{ToBad: 0.04, ToGood: 0.25, LossBad: 0.9}, Jitter: 40 * time.Millisecond},
	{Delay: 400 * time.Millisecond, Loss: 0.25, Jitter: 50 * time.Millisecond},
}

// F26: a portal that starts on a bad line connects, and everything arrives. On the last rung what comes of it is only noted.
func TestBadLines(t *testing.T) {
	t.Parallel()
	const most = 15 * time.Second
	kinds, climbed := []kind{overBoth}, []int{0, 3, 6}
	if *full {
		kinds, climbed = []kind{overTLS, overQUIC, overBoth}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	}
	for _, carriers := range kinds {
		t.Run(string(carriers), func(t *testing.T) {
			p := lined(link.Shape{})
			p.carriers = carriers
			w := newWorld(t, p)
			for _, i := range climbed {
				w.laptop.Kill()
				w.laptop.Host().Reshape(rungs[i], rungs[i])
				start := time.Now()
				w.laptop.Start()
				await.Until(t, fmt.Sprintf("served on rung %d", i), func() error { return served(w.laptop, outPort, w.atFactory) })
				connected := time.Since(start)
				took := carry(t, w.out(t), 1_000_000, 5*await.Patience)
				t.Logf("rung %d: connected after %v, 1 MB both ways in %v", i, connected, took)
				if connected > most && i < len(rungs)-1 {
					t.Errorf("rung %d: connected after %v, want %v at most", i, connected, most)
				}
			}
		})
	}
}

var garbling = link.Shape{Delay: 2 * time.Millisecond, Reorder: 0.25, Duplicate: 0.1, Corrupt: 0.001}

// F27: a line that mixes up, doubles and damages what it carries.
func TestLineThatGarbles(t *testing.T) {
	t.Parallel()
	overEach(t, lined(garbling), func(t *testing.T, w *world) {
		w.endures(t, fault{stall: 2 * time.Second, rounds: 1, rate: 5e6, strike: func() {
			await.Passing(t, whole(2*time.Second, time.Minute))
			await.Until(t, "garbling", func() error {
				up, down := w.laptop.Host().LinkCounters()
				for way, c := range map[string]link.Counters{"up": up, "down": down} {
					if c.HeldBack == 0 || c.Duplicated == 0 || c.Corrupted == 0 {
						return fmt.Errorf("%s so far: %v", way, c)
					}
				}
				return nil
			})
		}})
	})
}

// F28: one direction loses everything for a while, and the other does not.
func TestOneDirectionThatLosesEverything(t *testing.T) {
	t.Parallel()
	outage := whole(2*time.Second, 10*time.Second)
	overEach(t, lined(link.Shape{}), func(t *testing.T, w *world) {
		for name, shape := range map[string][2]link.Shape{
			"what laptop sends": {{Loss: 1}, {}}, "what it is sent": {{}, {Loss: 1}},
		} {
			t.Run(name, func(t *testing.T) {
				w.endures(t, w.lineFor(t, outage, outage+2*time.Second, shape[0], shape[1]))
			})
		}
	})
}

// lineFor is laptop's line being bad for a while.
func (w *world) lineFor(t *testing.T, outage, stall time.Duration, up, down link.Shape) fault {
	host := w.laptop.Host()
	return fault{
		stall: stall, rounds: 3,
		strike: func() {
			host.Reshape(up, down)
			await.Passing(t, outage)
			host.Reshape(link.Shape{}, link.Shape{})
		},
	}
}
