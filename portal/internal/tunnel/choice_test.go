package tunnel

import (
	"testing"
	"time"
)

// looks feeds a choice the same two round trips once a second for a time, and returns
// after how long it turned; 0: it did not.
type looks struct {
	c   choice
	now time.Time
}

func (l *looks) feed(relay, direct, during time.Duration) (turned time.Duration) {
	for began := l.now; l.now.Sub(began) < during; {
		l.now = l.now.Add(weighEvery)
		if l.c.weigh(l.now, relay, direct) {
			return l.now.Sub(began)
		}
	}
	return 0
}

const ms = time.Millisecond

func TestDirectPathIsTakenUnlessItTakesClearlyLonger(t *testing.T) {
	for name, tt := range map[string]struct {
		relay, direct time.Duration
		left          bool
	}{
		"much faster":               {80 * ms, 20 * ms, false},
		"as fast":                   {20 * ms, 20 * ms, false},
		"a little slower":           {20 * ms, 29 * ms, false},
		"slower by microseconds":    {100 * time.Microsecond, 5 * ms, false},
		"clearly slower":            {20 * ms, 31 * ms, true},
		"by far":                    {20 * ms, 800 * ms, true},
		"the relay is not measured": {0, 800 * ms, false},
		"nor is the direct path":    {20 * ms, 0, false},
	} {
		l := looks{now: time.Unix(1e9, 0)}
		turned := l.feed(tt.relay, tt.direct, time.Minute)
		if (turned > 0) != tt.left {
			t.Errorf("%s: left: %v", name, turned > 0)
		}
		if tt.left && (turned < slowAfter || turned > slowAfter+2*weighEvery) {
			t.Errorf("%s: left after %v", name, turned)
		}
	}
}

// One that is slow now and then, for less than slowAfter each time, is kept; and so are
// spikes of the other kind once it was left.
func TestShortSpikesChangeNothing(t *testing.T) {
	l := looks{now: time.Unix(1e9, 0)}
	for range 50 {
		if l.feed(20*ms, 500*ms, slowAfter-weighEvery) > 0 || l.feed(20*ms, 10*ms, weighEvery) > 0 {
			t.Fatal("a spike has turned it")
		}
	}
	if l.feed(20*ms, 500*ms, time.Minute) == 0 {
		t.Fatal("it stays on a slow path")
	}
	for range 50 {
		if l.feed(20*ms, 10*ms, fastAfter-weighEvery) > 0 || l.feed(20*ms, 500*ms, weighEvery) > 0 {
			t.Fatal("a spike has turned it back")
		}
	}
	// What was not looked at for a while counts for nothing.
	l.feed(20*ms, 10*ms, fastAfter-2*weighEvery)
	l.now = l.now.Add(time.Hour)
	if turned := l.feed(20*ms, 10*ms, time.Minute); turned < fastAfter {
		t.Errorf("turned back %v after a pause", turned)
	}
}

// A path that is slow whenever it is used, and fast when it is not, makes the tunnel
// change ever more rarely.
func TestPathThatIsSlowOnlyWhenUsedIsTriedEverMoreRarely(t *testing.T) {
	l := looks{now: time.Unix(1e9, 0)}
	var away []time.Duration
	turns, began := 0, l.now
	for l.now.Sub(began) < 2*time.Hour {
		l.feed(20*ms, 500*ms, time.Hour)
		back := l.feed(20*ms, 15*ms, 2*time.Hour)
		if back == 0 {
			t.Fatal("it is never tried again")
		}
		away = append(away, back)
		turns += 2
	}
	for i := 1; i < len(away); i++ {
		if away[i] < away[i-1] && away[i] < maxFast {
			t.Errorf("away for %v, then for %v", away[i-1], away[i])
		}
	}
	if turns > 40 {
		t.Errorf("%d turns in two hours", turns)
	}
	// After long good service it is tried as at first.
	l.feed(20*ms, 15*ms, 2*maxFast)
	l.feed(20*ms, 500*ms, time.Hour)
	if back := l.feed(20*ms, 15*ms, time.Hour); back > fastAfter+2*weighEvery {
		t.Errorf("back after %v, though it was good for long", back)
	}
}
