package tunnel

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

const (
	// maxLinks bounds the carriers of a tunnel, those included that are about to
	// end.
	maxLinks = 16
	// newTime is how long a carrier is new: if it breaks, its way may be at
	// fault. It is more than it takes to notice that nothing is answered.
	newTime = 20 * time.Second
	// leaveTime is how long a retired carrier waits for the peer to move its
	// streams.
	leaveTime = 10 * time.Second
	// doubtTime is how long a carrier is in doubt after another of its session
	// broke, for the relay may be gone, after one of TCP fell silent, or after the
	// peer has moved a stream off it: in that time it shows.
	doubtTime = time.Second
	// blameTime is how soon after a carrier broke another of its session must
	// come for the way of the first to be at fault, not the relay or the network.
	blameTime = 15 * time.Second
	// maxLate is how many streams that have left a carrier are remembered at
	// least, for what may still come there.
	maxLate = 4096
)

var (
	errNoCarrier = errors.New("nothing was heard from the peer on any carrier")
	errDeserted  = errors.New("nothing was answered on it, and its streams have moved")
	errCrowded   = errors.New("the tunnel has carriers enough")
	errForbidden = errors.New("the policy allows no direct paths (direct = \"never\")")
)

// link is a carrier as its tunnel sees it. It implements carrier.Handler.
type link struct {
	t       *Tunnel
	conn    carrier.Conn
	way     Way
	direct  bool      // it goes by no relay
	since   time.Time // when it was attached
	silent  atomic.Bool
	retired atomic.Bool
	renew   atomic.Bool  // to be made anew
	stuck   atomic.Bool  // the way was told
	doubted atomic.Int64 // when the peer was asked whether it lives, Unix nanoseconds
	streams atomic.Int32 // attached
	detour  atomic.Bool  // it takes clearly longer than another direct one

	retiredAt time.Time // the tunnel's lock guards it, and this:
	longer    choice    // whether it does

	mu        sync.Mutex          // guards the following
	late, was map[uint32]struct{} // streams that have left, the newer and the older ones
}

// Attach makes c a carrier of the tunnel, which owns it from then on. HELLO has
// been exchanged, or was sent by a client that named no tunnel. Streams without a
// carrier, and those of worse ones, move to it. An error says that the tunnel
// did not take it.
func (t *Tunnel) Attach(c carrier.Conn, way Way) error {
	l := &link{t: t, conn: c, way: way, direct: way.Direct(), since: time.Now()}
	guilty, err := t.attach(l)
	for _, way := range guilty {
		way.Lost()
	}
	if err == nil && t.cfg.Came != nil {
		t.cfg.Came()
	}
	return err
}

// attach takes a carrier, and returns the ways that its coming speaks against.
func (t *Tunnel) attach(l *link) (guilty []Way, err error) {
	c := l.conn
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
		return nil, ErrClosed
	case len(t.links) >= maxLinks:
		return nil, errCrowded
	case l.direct && t.paths == grant.DirectNever:
		return nil, errForbidden
	}
	t.suspects = slices.DeleteFunc(t.suspects, func(s suspect) bool {
		hit := s.session == c.Session() && l.since.Sub(s.at) < blameTime
		if hit {
			guilty = append(guilty, s.way)
		}
		return hit
	})
	if slices.Contains(t.leaving, c.Session()) {
		l.retire(l.since)
	}
	for _, o := range t.links {
		if l.direct && o.direct && o.renew.Load() {
			o.retire(l.since)
		}
	}
	t.tasks.Go(func() {
		// finish closes it, and has a last frame to send.
		t.left(l, c.Run(context.WithoutCancel(t.ctx), l))
	})
	t.links = append(t.links, l)
	t.recountLocked(l.since)
	t.flowsLocked(l.since)
	t.peer = c.Peer()
	t.lostAt = time.Time{}
	t.offerLocked(l)
	select {
	case <-t.up:
	default:
		if t.idleTimer == nil {
			t.restLocked()
		}
		close(t.up)
	}
	t.changedLocked()
	return guilty, nil
}

// Hello implements carrier.Handler. Whatever tunnel the peer had, it is not this
// one, which begins here.
func (l *link) Hello(wire.TunnelHello) error { return nil }

// Silent implements carrier.Handler. What swallows the full segments of one
// carrier swallows those of others: all of TCP are in doubt then, wherever they
// run.
func (l *link) Silent(silent bool) {
	if silent {
		l.blameSize() // before the owner looks for another carrier
	}
	l.silent.Store(silent)
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if silent && l.conn.Kind() == wire.CarrierTCP {
		for _, o := range l.t.links {
			if o != l && o.conn.Kind() == wire.CarrierTCP && !o.silent.Load() {
				o.doubt()
			}
		}
	}
	l.t.worse = l.t.worse || silent
	l.t.recountLocked(l.heardAt(time.Now()))
	l.t.changedLocked()
}

// heardAt is when the peer was last heard on the carrier: now, unless an answer
// is overdue.
func (l *link) heardAt(now time.Time) time.Time {
	if l.silent.Load() {
		return l.conn.Quiet()
	}
	return now
}

// blameSize tells the way if full segments get lost on it, the first time.
func (l *link) blameSize() {
	if w, ok := l.way.(interface{ Stuck() }); ok && l.conn.Stats().Stuck && !l.stuck.Swap(true) {
		w.Stuck()
	}
}

// doubt asks the peer at once whether the carrier lives, unless that was done a
// moment ago.
func (l *link) doubt() {
	now, last := time.Now().UnixNano(), l.doubted.Load()
	if now-last > int64(doubtTime) && l.doubted.CompareAndSwap(last, now) {
		l.conn.Doubt()
		l.t.wake()
	}
}

// doubtEnds is how long the carrier is still in doubt.
func (l *link) doubtEnds(now time.Time) time.Duration {
	return doubtTime - now.Sub(time.Unix(0, l.doubted.Load()))
}

// Retire has everything leave the carriers of a session, also those to come, as soon as
// there are others, and then closes them.
func (t *Tunnel) Retire(session wire.SessionID, reason wire.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaving = append(t.leaving, session)
	if len(t.leaving) > maxLinks {
		t.leaving = t.leaving[1:]
	}
	t.leaveLocked(session, reason)
}

// Leave is Retire for those that there are now.
func (t *Tunnel) Leave(session wire.SessionID, reason wire.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked(session, reason)
}

func (t *Tunnel) leaveLocked(session wire.SessionID, reason wire.Reason) {
	for _, l := range t.links {
		if l.conn.Session() == session && l.retire(time.Now()) {
			t.cfg.Log.Info("carrier retired", "session", session.String(), "carrier", l.conn.Connection(), "kind", l.conn.Kind().String(), "reason", reason.String())
		}
	}
	t.changedLocked()
}

// retire marks the carrier. It reports false if it was.
func (l *link) retire(now time.Time) bool {
	if l.retired.Swap(true) {
		return false
	}
	l.retiredAt = now
	return true
}

// remember notes that a stream has left the carrier: what comes of it there is
// late, not stray.
func (l *link) remember(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late == nil || len(l.late) >= maxLate {
		l.was, l.late = l.late, make(map[uint32]struct{})
	}
	l.late[id] = struct{}{}
}

// left reports whether a stream has left the carrier.
func (l *link) left(id uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, late := l.late[id]
	_, was := l.was[id]
	return late || was
}
