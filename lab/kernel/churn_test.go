package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// G9: sessions that come and go leave nothing. With -full it is 10,000 of them; the rate is in the log (5,000 a second is
// what a relay should stand).
func TestSessionsThatComeAndGoLeaveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{})
	before := w.descriptors()
	sessions, workers := 1000, 64
	if *full {
		sessions = 10_000
	}
	numbers := make(chan int)
	var running sync.WaitGroup
	began := time.Now()
	for range workers {
		running.Go(func() {
			for n := range numbers {
				terms := daemon.Terms{Portals: [2]string{fmt.Sprint("opener-", n%100), "peer"}}
				for i := range terms.Sources {
					terms.Sources[i] = netip.AddrFrom4([4]byte{20, 200 + byte(i), byte(n >> 8), byte(n)})
				}
				s, err := w.broker.TryOpen(w.relay, terms)
				if err != nil {
					t.Error(err)
					continue
				}
				if s.Ready.Packet[0] == 0 || s.Ready.UDP == 0 {
					t.Errorf("session %d has no ports: %+v", n, s.Ready)
				}
				w.broker.Close(w.relay, s)
			}
		})
	}
	for n := range sessions {
		numbers <- n
	}
	close(numbers)
	running.Wait()
	await.Until(t, "over", func() error {
		if n := len(w.status().Sessions); n > 0 {
			return fmt.Errorf("%d sessions are left", n)
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("%d sessions opened and ended in %v: %.0f a second", sessions, took.Round(time.Millisecond), float64(sessions)/took.Seconds())
	await.Until(t, "as before", func() error {
		if now := w.descriptors(); now != before {
			return fmt.Errorf("the relay has %d open files, and had %d", now, before)
		}
		return nil
	})
}

// descriptors counts the files that the relay has open.
func (w *world) descriptors() int {
	w.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.relay.Process().PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}
