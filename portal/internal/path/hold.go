package path

import "time"

// steps are the silences that are tried, shortest first. The longest is below
// the lifetime of a session at a relay.
var steps = [...]time.Duration{
	time.Second, 1500 * time.Millisecond, 3 * time.Second, 7 * time.Second, 15 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute,
}

const (
	firstStep = 4 // 15 s: what nearly every NAT holds
	// enough silences in a row must have been held before a longer one is tried.
	enough = 2
	// firstDelay is how long after a step has failed it is tried again (a NAT that
	// has seen a flow for a while may hold it for longer), and
	// maxDelay what that grows to while it fails again and again.
	firstDelay = time.Minute
	maxDelay   = 24 * time.Hour
)

// hold is what is known of how long a network holds a silent UDP leg open: its
// NATs and firewalls forget a flow that nothing is sent on. The longest that is
// known to be held is what a silent leg may be left alone for; a longer one is
// tried from time to time. The zero hold knows nothing.
type hold struct {
	known  bool
	step   int           // index in steps: the silence to leave
	held   int           // how often in a row it was held
	failed int           // the step that failed last; 0: none
	wait   time.Duration // until failed is tried again, the last time
	again  time.Time     // when that is
}

// interval is the silence to leave.
func (h hold) interval() time.Duration {
	if !h.known {
		return steps[firstStep]
	}
	return steps[h.step]
}

func (h hold) begun() hold {
	if !h.known {
		return hold{known: true, step: firstStep}
	}
	return h
}

// survived notes that the leg was open after a silence.
func (h hold) survived(silence time.Duration, now time.Time) hold {
	h = h.begun()
	if silence < h.interval()*9/10 {
		return h // the other portal asks more often
	}
	h.held++
	next := h.step + 1
	if h.held < enough || next == len(steps) || h.failed != 0 && next >= h.failed && now.Before(h.again) {
		return h
	}
	h.step, h.held = next, 0
	return h
}

// lost notes that the leg was not open after a silence.
func (h hold) lost(silence time.Duration, now time.Time) hold {
	h = h.begun()
	failed := 1
	for failed+1 < len(steps) && steps[failed+1] <= silence {
		failed++
	}
	if failed == h.failed {
		h.wait = min(2*h.wait, maxDelay)
	} else {
		h.wait = firstDelay
	}
	h.failed, h.again = failed, now.Add(h.wait)
	h.step, h.held = min(h.step, failed-1), 0
	return h
}
