package traffic

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
)

// meter is a stream that carries bytes until it is over.
type meter struct{ n atomic.Uint64 }

func (m *meter) Carried() tunnel.Totals {
	n := m.n.Load()
	return tunnel.Totals{Sent: n, Received: 2 * n}
}

// TestSumsNeverFall has streams begin, carry and end while somebody asks: the sum never
// falls, and is right in the end.
func TestSumsNeverFall(t *testing.T) {
	var l Ledger
	key := Key{"web", "ann", "exit"}
	const streams, bytes, workers = 200, 100, 4
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for range streams {
				a := l.Account(key)
				m := &meter{}
				a.Enter(m)
				for range bytes {
					m.n.Add(1)
				}
				a.Moved()
				a.Leave(m, m.Carried())
			}
		})
	}
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	var last Sum
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		s := l.Forwards()[key]
		if s.Sent < last.Sent || s.Received < last.Received || s.Opened < last.Opened {
			t.Fatalf("%+v after %+v", s, last)
		}
		last = s
	}
	want := Sum{Totals: tunnel.Totals{Sent: workers * streams * bytes, Received: 2 * workers * streams * bytes}, Opened: workers * streams, Moved: workers * streams}
	if last != want {
		t.Errorf("%+v, want %+v", last, want)
	}
}

func TestStallsAreSummed(t *testing.T) {
	var l Ledger
	for _, d := range []time.Duration{time.Second, 3 * time.Second, 2 * time.Second} {
		l.Stalled("ann", d)
	}
	if got, want := l.Peers()["ann"], (Stalls{3, 6 * time.Second, 3 * time.Second}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestLedgerIsBounded(t *testing.T) {
	var l Ledger
	for i := range maxEntries + 1 {
		a := l.Account(Key{Forward: strconv.Itoa(i)})
		if (a == nil) != (i == maxEntries) {
			t.Fatalf("account %d: %v", i, a)
		}
		l.Stalled(strconv.Itoa(i), 1)
	}
	if n := len(l.Peers()); n != maxEntries {
		t.Errorf("%d peers", n)
	}
}
