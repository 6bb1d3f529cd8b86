package tunnel

import (
	"context"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// directWait is how long what may take direct carriers only waits for one to be
// opened.
const directWait = 10 * time.Second

// wait waits until there is a carrier that may be taken.
func (t *Tunnel) wait(ctx context.Context) error {
	t.mu.Lock()
	carried, over := t.carried, t.over
	there, crowd := t.carriedLocked(), t.waiting >= maxPending
	only := t.paths == grant.DirectOnly
	if !there && !over && !crowd {
		t.waiting++
	}
	t.mu.Unlock()
	switch {
	case over:
		return ErrClosed
	case there:
		return nil
	case crowd:
		return &EndError{Reason: wire.ReasonBusy, Text: "too much waits for a carrier"}
	}
	defer func() {
		t.mu.Lock()
		t.waiting--
		t.mu.Unlock()
	}()
	var late <-chan time.Time
	if only {
		timer := time.NewTimer(directWait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-carried:
		return nil
	case <-late:
		return notDirect()
	case <-t.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// notDirect is how what may take direct carriers only ends for want of one.
func notDirect() *EndError {
	return &EndError{Reason: wire.ReasonNotDirect, Text: `the policy allows direct paths only (direct = "only"), and no direct path to the other portal has been found`}
}

func (t *Tunnel) mayTake(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mayTakeLocked(l)
}

// mayTakeLocked reports whether streams and flows may be on the carrier.
func (t *Tunnel) mayTakeLocked(l *link) bool {
	return t.paths == grant.DirectAny || l.direct == (t.paths == grant.DirectOnly)
}

// carriedLocked reports whether there is a carrier that may be taken.
func (t *Tunnel) carriedLocked() bool {
	select {
	case <-t.carried:
		return true
	default:
		return false
	}
}

// recountLocked takes that there are other carriers, or that others may be taken;
// heard is when the peer was last heard on what may have been the last of them.
func (t *Tunnel) recountLocked(heard time.Time) {
	there, barred := false, false
	for _, l := range t.links {
		switch {
		case !t.mayTakeLocked(l):
			barred = true
		case t.paths == grant.DirectOnly && l.silent.Load():
			// What is opened on it would wait for the next one as long as what runs, and
			// not be told why.
		default:
			there = true
		}
	}
	switch was := t.carriedLocked(); {
	case there && !was:
		close(t.carried)
	case !there && was:
		t.carried = make(chan struct{})
	}
	switch {
	case there || !barred:
		t.barredAt = time.Time{}
	case t.barredAt.IsZero():
		t.barredAt = heard
	}
}

// SetPaths changes Config.Paths. What runs on a carrier that it may not take any
// more moves; direct carriers are closed where there are to be none.
func (t *Tunnel) SetPaths(paths grant.Direct) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paths == paths {
		return
	}
	now := time.Now()
	t.paths = paths
	t.recountLocked(now)
	for _, l := range t.links {
		if l.direct && paths == grant.DirectNever {
			l.retire(now)
		}
	}
	t.changedLocked()
}

// endBarred ends what has waited in vain for a carrier that it may take, while there
// are others, and returns when that is to be looked at again.
func (t *Tunnel) endBarred(now time.Time) (wait time.Duration) {
	t.mu.Lock()
	since, ends := t.barredAt, t.endsLocked()
	t.mu.Unlock()
	if since.IsZero() || len(ends) == 0 {
		return time.Hour
	}
	if wait = time.Duration(t.linger.Load()) - now.Sub(since); wait > 0 {
		return wait
	}
	for _, e := range ends {
		e.cut(notDirect(), true)
	}
	t.arrange() // the peer is told on what there is
	return time.Hour
}
