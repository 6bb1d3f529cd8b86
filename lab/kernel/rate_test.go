package kernel

import (
	"errors"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
)

// What the operator lets a connection carry in a second is what gets through of more, in each direction by itself.
func TestRatesAreHeld(t *testing.T) {
	const rate, offered, seconds = 500, 2000, 2
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, plan{mode: mode, config: []daemon.Option{daemon.Set("packets_per_second", rate)}})
			legs := w.meet(anyTerms).bind()
			d := meter.Datagrams{Count: offered * seconds, Interval: time.Second / offered, Key: []byte("lab")}
			arrived := make(chan int)
			for i := range legs {
				go func() {
					report, err := d.Measure(t.Context(), legs[i], legs[1-i])
					if err := errors.Join(err, report.Check()); err != nil {
						t.Error(err)
					}
					arrived <- report.Received
				}()
			}
			const want, burst = rate * seconds, rate / 10
			for range legs {
				// A busy machine takes longer to send them, and so lets more through.
				if got := <-arrived; got < want*9/10 || got > want*3/2+burst {
					t.Errorf("of %d datagrams in %d s %d arrived, want about %d", d.Count, seconds, got, want)
				}
			}
			if s := w.status(); s.KernelDrops["rate_limit"] == 0 {
				t.Errorf("the kernel dropped %v, want some for their rate", s.KernelDrops)
			}
		})
	}
}
