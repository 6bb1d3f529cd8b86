package exit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// far reports whether got is farther from want than a part of it.
func far(got, want, part float64) bool { return math.Abs(got-want) > part*want }

// TestRateIsKeptAndSharedFairly: streams that ask for much and for little at a
// time, a late one, and one that says a word now and then.
func TestRateIsKeptAndSharedFairly(t *testing.T) {
	const rate = 1_000_000
	synctest.Test(t, func(t *testing.T) {
		var r turns
		r.setRate(rate)
		done := make(chan struct{})
		var running sync.WaitGroup
		var bytes [3]atomic.Int64
		backlog := func(i, n int) {
			running.Go(func() {
				var s share
				for r.wait(&s, n, done) {
					bytes[i].Add(int64(n))
				}
			})
		}
		backlog(0, r.most())
		backlog(1, 1460)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		first, second := float64(bytes[0].Load()), float64(bytes[1].Load())
		if far(first+second, 10*rate, 0.02) || far(first, second, 0.05) {
			t.Errorf("in 10 s at %d B/s: %.0f and %.0f bytes", rate, first, second)
		}
		backlog(2, 4096)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if late := float64(bytes[2].Load()); far(late, 3*rate, 0.05) {
			t.Errorf("a third stream got %.0f bytes in 9 s, want a third of %d", late, 9*rate)
		}
		var word share
		var longest time.Duration
		for range 20 {
			began := time.Now()
			if !r.wait(&word, 100, done) {
				t.Fatal("no turn")
			}
			longest = max(longest, time.Since(began))
			time.Sleep(97 * time.Millisecond)
		}
		// The turn that is under way is owed, and no other is waited for.
		if longest > 3*turnTime {
			t.Errorf("a word waited %v behind backlogs", longest)
		}
		close(done)
		running.Wait()
		if n := len(r.queue.list); n != 0 {
			t.Errorf("%d wait that have gone", n)
		}
	})
}

// TestDatagramsAreDroppedAndHaveTheirShare: alone a flow gets the rate and loses
// the rest; beside streams it gets its part, and they theirs.
func TestDatagramsAreDroppedAndHaveTheirShare(t *testing.T) {
	const rate = 500_000
	synctest.Test(t, func(t *testing.T) {
		var r turns
		r.setRate(rate)
		flood := func(d time.Duration, size int) (passed float64) {
			var s share
			for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(500 * time.Microsecond) {
				if r.try(&s, size) {
					passed += float64(size)
				}
			}
			return passed
		}
		if got := flood(10*time.Second, 1200); far(got, 10*rate, 0.03) {
			t.Errorf("alone %.0f bytes passed in 10 s", got)
		}
		if got := flood(10*time.Second, 65507); far(got, 10*rate, 0.05) {
			t.Errorf("of large datagrams %.0f bytes passed in 10 s", got)
		}
		done := make(chan struct{})
		var running sync.WaitGroup
		var carried atomic.Int64
		running.Go(func() {
			var s share
			for r.wait(&s, r.most(), done) {
				carried.Add(int64(r.most()))
			}
		})
		passed := flood(10*time.Second, 1200)
		stream := float64(carried.Load())
		if far(passed+stream, 10*rate, 0.05) || far(passed, stream, 0.2) {
			t.Errorf("a flow got %.0f bytes and a stream %.0f in 10 s", passed, stream)
		}
		close(done)
		running.Wait()
	})
}

// TestRateChangesForThoseWhoWait: to none, too.
func TestRateChangesForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r turns
		r.setRate(10)
		var s share
		done := make(chan struct{})
		r.wait(&s, 1000, done) // it owes 100 s now
		for _, rate := range []uint64{1000, 0} {
			turn := make(chan bool)
			go func() { turn <- r.wait(&s, 1000, done) }()
			synctest.Wait()
			began := time.Now()
			r.setRate(rate)
			if took := time.Since(began); !<-turn || took > 2*time.Second {
				t.Errorf("at %d B/s the turn came after %v", rate, took)
			}
		}
		if !r.wait(&s, math.MaxInt32, done) || r.most() != maxTurn {
			t.Error("without a rate something waits")
		}
	})
}
