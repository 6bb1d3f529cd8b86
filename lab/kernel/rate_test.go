package kernel

import (
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
)

// burst is how far a direction may be ahead of its rate (bpf.Terms).
const burst = 100 * time.Millisecond

// pace notes when a sender writes. A busy machine lets it stand still: what the
// rate allows meanwhile, beyond a burst, nobody can make up for later.
type pace struct {
	w           io.Writer
	first, last time.Time
	stood       time.Duration // in pauses, beyond a burst each
}

func (p *pace) Write(b []byte) (int, error) {
	now := time.Now()
	if p.first.IsZero() {
		p.first, p.last = now, now
	}
	p.stood += max(0, now.Sub(p.last)-burst)
	p.last = now
	return p.w.Write(b)
}

// What the operator lets a connection carry in a second is what gets through of more, in each direction by itself.
func TestRatesAreHeld(t *testing.T) {
	t.Parallel()
	const rate = 500
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode, config: []daemon.Option{daemon.Set("packets_per_second", rate)}})
			wantRate(t, w.meet(anyTerms).bind(), rate)
			if s := w.status(); s.KernelDrops["rate_limit"] == 0 {
				t.Errorf("the kernel dropped %v, want some for their rate", s.KernelDrops)
			}
		})
	}
}

// A new rate is for the sessions that begin after SIGHUP has the relay read it; those that are there keep theirs, and go
// on. So it is in the kernel and in user space.
func TestANewRateIsForNewSessions(t *testing.T) {
	t.Parallel()
	const before, after = 500, 1000
	for _, mode := range []string{"tc", "userspace"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode, config: []daemon.Option{daemon.Set("packets_per_second", before)}})
			old := w.meet(anyTerms).bind()
			wantRate(t, old, before)
			w.relay.Configure("packets_per_second", after)
			w.relay.Process().Signal(syscall.SIGHUP)
			w.relay.WaitLog("configuration read anew")
			wantRate(t, w.meet(anyTerms).bind(), after)
			wantRate(t, old, before)
		})
	}
}

// wantRate sends more than a rate of packets a second over two legs, both ways, and wants so many to come through.
func wantRate(t *testing.T, legs [2]udpLeg, rate float64) {
	t.Helper()
	const offered, seconds = 2000, 2
	d := meter.Datagrams{Count: offered * seconds, Interval: time.Second / offered, Key: []byte(rand.Text())}
	var measuring sync.WaitGroup
	for i := range legs {
		measuring.Go(func() {
			pace := &pace{w: legs[i]}
			report, err := d.Measure(t.Context(), pace, legs[1-i])
			if err := errors.Join(err, report.Check()); err != nil {
				t.Error(err)
			}
			took := pace.last.Sub(pace.first).Seconds()
			// A busy machine lets relay and receiver stand still, too.
			least, most := rate*(took-pace.stood.Seconds())*2/3, rate*(took+burst.Seconds())*11/10
			if got := float64(report.Received); got < least || got > most {
				t.Errorf("of %d datagrams in %.2f s, of which the sender stood still for %v, %.0f arrived; want %.0f to %.0f",
					d.Count, took, pace.stood, got, least, most)
			}
		})
	}
	measuring.Wait()
}
