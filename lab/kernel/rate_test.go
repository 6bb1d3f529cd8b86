package kernel

import (
	"errors"
	"io"
	"sync"
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
	const rate, offered, seconds = 500, 2000, 2
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode, config: []daemon.Option{daemon.Set("packets_per_second", rate)}})
			legs := w.meet(anyTerms).bind()
			d := meter.Datagrams{Count: offered * seconds, Interval: time.Second / offered, Key: []byte("lab")}
			var measuring sync.WaitGroup
			for i := range legs {
				measuring.Go(func() {
					pace := &pace{w: legs[i]}
					report, err := d.Measure(t.Context(), pace, legs[1-i])
					if err := errors.Join(err, report.Check()); err != nil {
						t.Error(err)
					}
					took := pace.last.Sub(pace.first).Seconds()
					least, most := rate*(took-pace.stood.Seconds())*9/10, rate*(took+burst.Seconds())*11/10
					if got := float64(report.Received); got < least || got > most {
						t.Errorf("of %d datagrams in %.2f s, of which the sender stood still for %v, %.0f arrived; want %.0f to %.0f",
							d.Count, took, pace.stood, got, least, most)
					}
				})
			}
			measuring.Wait()
			if s := w.status(); s.KernelDrops["rate_limit"] == 0 {
				t.Errorf("the kernel dropped %v, want some for their rate", s.KernelDrops)
			}
		})
	}
}
