package tunnel

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/grant"
)

// changedLocked has the loop look at everything: a carrier has come, gone, or
// changed.
func (t *Tunnel) changedLocked() {
	t.changed = true
	t.wake()
}

// wake has the loop look at its deadlines.
func (t *Tunnel) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// keep is the tunnel's loop: it alone decides where streams go, which carriers
// are given up and which are wanted. It ends with the tunnel.
func (t *Tunnel) keep() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-t.done:
			return
		case <-t.kick:
		case <-timer.C:
		}
		timer.Reset(t.tend(time.Now()))
	}
}

// tend does what is due and returns after how long it is to be called again, if
// nothing happens before.
func (t *Tunnel) tend(now time.Time) time.Duration {
	wait := time.Hour
	t.mu.Lock()
	changed := t.changed
	t.changed = false
	t.mu.Unlock()
	if changed {
		t.arrange()
	}
	wait = min(wait, t.follow(now))
	wait = min(wait, t.settles(now))
	wait = min(wait, t.weigh(now))
	wait = min(wait, t.giveUp(now))
	wait = min(wait, t.grow(now))
	t.tell()
	wait = min(wait, t.endBarred(now))
	return min(wait, t.lingers(now))
}

// arrange has every end find its best carrier.
func (t *Tunnel) arrange() {
	t.mu.Lock()
	t.flowsLocked(time.Now())
	ends := t.endsLocked()
	t.mu.Unlock()
	for _, e := range ends {
		e.place()
	}
}

// settles has everything looked at again when the carriers that were in doubt are
// no longer: what has left them for a worse kind comes back. It returns when that
// will be.
func (t *Tunnel) settles(now time.Time) (wait time.Duration) {
	wait = time.Hour
	t.mu.Lock()
	defer t.mu.Unlock()
	inDoubt := false
	for _, l := range t.links {
		if left := l.doubtEnds(now); left > 0 {
			inDoubt, wait = true, min(wait, left)
		}
	}
	if t.inDoubt && !inDoubt {
		t.changedLocked()
	}
	t.inDoubt = inDoubt
	return wait
}

// giveUp closes carriers that nothing is on and nobody wants, if there are
// others: those that were retired, and those that are silent. A silent one may
// hold goroutines of streams that have moved, which wait for its socket. A direct one that
// the policy forbids is closed though there is no other.
func (t *Tunnel) giveUp(now time.Time) (wait time.Duration) {
	wait = time.Hour
	var silent, retired []*link
	t.mu.Lock()
	for _, l := range t.links {
		better := slices.ContainsFunc(t.links, func(o *link) bool {
			return o != l && !o.silent.Load() && !o.retired.Load()
		})
		late := leaveTime - now.Sub(l.retiredAt)
		forbidden := l.direct && t.paths == grant.DirectNever
		switch empty := l.streams.Load() == 0 && l != t.flowAt.Load() && better; {
		case !better && !forbidden:
		case empty && l.silent.Load():
			silent = append(silent, l)
		case l.retired.Load() && (empty || late <= 0):
			retired = append(retired, l)
		case l.retired.Load():
			wait = min(wait, late)
		}
	}
	t.mu.Unlock()
	for _, l := range silent {
		l.conn.Abort(errDeserted)
	}
	for _, l := range retired {
		l.conn.Close(nil)
	}
	return wait
}

// tell tells the owner how the carriers are, if that has changed or become worse.
func (t *Tunnel) tell() {
	t.mu.Lock()
	state := Well
	switch {
	case len(t.links) == 0:
		state = Lost
	case slices.ContainsFunc(t.links, func(l *link) bool { return l.silent.Load() }):
		state = Silent
	}
	tell := (state != t.told || state != Well && t.worse) && !t.over && (state != Lost || !t.lostAt.IsZero())
	t.worse = false
	if tell {
		t.told = state
	}
	t.mu.Unlock()
	if tell && t.cfg.Trouble != nil {
		t.cfg.Trouble(state)
	}
}

// SetLinger changes Config.Linger, also for a wait that is under way.
func (t *Tunnel) SetLinger(d time.Duration) {
	t.linger.Store(int64(d))
	t.wake()
}

// lingers ends a tunnel that has not heard from its peer for too long, and
// returns when it will be.
func (t *Tunnel) lingers(now time.Time) (wait time.Duration) {
	t.mu.Lock()
	since := t.quietLocked(now)
	t.mu.Unlock()
	if since.IsZero() {
		return time.Hour
	}
	if wait = time.Duration(t.linger.Load()) - now.Sub(since); wait <= 0 {
		t.finishLost()
		return time.Hour
	}
	return wait
}

// quietLocked returns when the peer was last heard, if no carrier is left or an
// answer is overdue on all; else zero. An application must not wait the longer
// for the time that it takes to call a silent carrier dead.
func (t *Tunnel) quietLocked(now time.Time) time.Time {
	if len(t.links) == 0 {
		return t.lostAt
	}
	last := t.heardAt
	for _, l := range t.links {
		if !l.silent.Load() {
			return time.Time{}
		}
		last = later(last, l.heardAt(now))
	}
	return last
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
