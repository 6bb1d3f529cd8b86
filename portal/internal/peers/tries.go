package peers

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// freeTries is how many tries a relay has of which nothing was heard since the
	// first of them, before those that follow take turns.
	freeTries = 4
	// tryEvery is how far apart turns are at least; up to a quarter of it is added.
	tryEvery = time.Second
	// forgetTime is how long after the last try a relay is not known any more of which
	// nothing was heard.
	forgetTime = time.Minute
)

// tries spaces what this portal tries at relays that do not answer: at all of them
// together once in tryEvery, however many peers, sessions and carriers would try (F8).
// One answer shows that a relay is there, and all that wait for it go on.
//
// Relays take turns, so that one that is back is found soon, however many wait for
// others. Those who wait for the same relay take turns too.
//
// It is safe for concurrent use. Its lock is a leaf.
type tries struct {
	turn chan struct{} // capacity 1: held by the relay that has the next turn

	mu     sync.Mutex // guards the following
	next   time.Time  // when the next turn may begin
	relays map[string]*unheard
}

// unheard is a relay of which nothing was heard since it was tried. The lock of
// tries guards it.
type unheard struct {
	count   int           // of tries
	began   time.Time     // the first of them
	last    time.Time     // the last
	waiting int           // for a turn
	turn    chan struct{} // capacity 1: held by who has the relay's next turn
	heard   chan struct{} // closed when something was heard of it
	spread  time.Duration // valid then: all that wait go on within that time
}

func (t *tries) init() {
	t.turn = make(chan struct{}, 1)
	t.relays = make(map[string]*unheard)
}

// note counts a try that need not wait.
func (t *tries) note(relay string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked(relay)
}

func (t *tries) noteLocked(relay string) *unheard {
	now := time.Now()
	u := t.relays[relay]
	if u == nil {
		for name, o := range t.relays {
			if o.waiting == 0 && now.Sub(o.last) > forgetTime {
				delete(t.relays, name)
			}
		}
		u = &unheard{began: now, turn: make(chan struct{}, 1), heard: make(chan struct{})}
		t.relays[relay] = u
	}
	u.count++
	u.last = now
	return u
}

// wait returns when a relay may be tried, which it counts: at once, unless nothing was
// heard of it since earlier tries. The error is that of ctx.
func (t *tries) wait(ctx context.Context, relay string) error {
	t.mu.Lock()
	u := t.noteLocked(relay)
	if u.count <= freeTries {
		t.mu.Unlock()
		return ctx.Err()
	}
	u.waiting++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		u.waiting--
		u.last = time.Now()
	}()
	for _, turn := range []chan struct{}{u.turn, t.turn} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-u.heard:
			if !sleep(ctx, rand.N(u.spread)) {
				return context.Cause(ctx)
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return t.mine(ctx, u)
}

// mine waits for the moment of the turn that the caller has.
func (t *tries) mine(ctx context.Context, u *unheard) error {
	t.mu.Lock()
	timer := time.NewTimer(time.Until(t.next))
	t.mu.Unlock()
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.heard:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = time.Now().Add(tryEvery + rand.N(tryEvery/4))
	return nil
}

// silent reports whether nothing was heard of a relay for a while, though it was tried.
func (t *tries) silent(relay string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.relays[relay]
	return u != nil && u.count >= freeTries && time.Since(u.began) >= tryEvery
}

// heard tells that a relay has answered, and reports whether it had not for a while.
func (t *tries) heard(relay string) (back bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.relays[relay]
	if u == nil {
		return false
	}
	t.releaseLocked(relay, u)
	return u.count > freeTries
}

// again has every relay tried as if nothing were known of it.
func (t *tries) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for relay, u := range t.relays {
		t.releaseLocked(relay, u)
	}
}

// releaseLocked lets all go on that wait for a relay, but not all in one moment.
func (t *tries) releaseLocked(relay string, u *unheard) {
	u.spread = min(time.Duration(u.waiting+1)*spreadEach, maxPause)
	close(u.heard)
	delete(t.relays, relay)
}
