package tunnel

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxCarriers bounds the TCP carriers that streams spread over.
	maxCarriers = 4
	// firstPause and lastPause bound the pause after a further carrier that
	// could not be joined, or did not last.
	firstPause = time.Second
	lastPause  = time.Minute
	// lastsTime is how long a carrier must have lived for the pauses to begin
	// anew.
	lastsTime = time.Minute
)

// further is what a tunnel knows of carriers to come; its lock guards it.
type further struct {
	tcp, quic effort
}

// effort is the effort for carriers of one kind.
type effort struct {
	joining int       // carriers that are being joined
	after   time.Time // no other before
	pause   time.Duration
}

func (f *further) of(kind wire.CarrierKind) *effort {
	if kind == wire.CarrierQUIC {
		return &f.quic
	}
	return &f.tcp
}

// failed has the next one wait, longer each time.
func (e *effort) failed(now time.Time) {
	e.pause = min(max(2*e.pause, firstPause), lastPause)
	e.after = now.Add(e.pause)
}

// ended notes that a carrier died after it had lived so long.
func (f *further) ended(l *link, lived time.Duration) {
	e := f.of(l.conn.Kind())
	if lived >= lastsTime {
		e.pause = 0
	} else {
		e.failed(time.Now())
	}
}

// wantsLocked says of which kind the tunnel would have one more carrier: one for
// streams if they have none of TCP, one for flows if they have none of QUIC, or
// one more to spread streams over.
func (t *Tunnel) wantsLocked() (wire.CarrierKind, bool) {
	if t.cfg.Next == nil || t.cfg.More == nil || t.over || t.asked || t.drained != nil || len(t.links) == 0 {
		return 0, false
	}
	tcp, quic := t.further.tcp.joining, t.further.quic.joining
	var old *link // to be made anew
	for _, l := range t.links {
		if l.renews() {
			old = l
		}
		switch {
		case l.retired.Load():
		case l.conn.Kind() == wire.CarrierQUIC:
			quic++
		default:
			tcp++
		}
	}
	// A carrier is one processor's worth of AES-GCM at either portal.
	most := min(max(runtime.GOMAXPROCS(0), 2), maxCarriers)
	switch {
	case t.streams > 0 && tcp == 0, tcp > 0 && tcp < most && t.streams > tcp:
		return wire.CarrierTCP, true
	case t.streams < len(t.ends) && quic == 0 && (old == nil || old.conn.Kind() == wire.CarrierQUIC):
		return wire.CarrierQUIC, true
	case old != nil && len(t.ends) > 0 && tcp+quic == 0:
		return old.conn.Kind(), true
	}
	return 0, false
}

// grow joins the carriers that are wanted, and returns when it is to be called
// again.
func (t *Tunnel) grow(now time.Time) (wait time.Duration) {
	for {
		t.mu.Lock()
		kind, ok := t.wantsLocked()
		if !ok {
			t.mu.Unlock()
			return time.Hour
		}
		e := t.further.of(kind)
		if wait := e.after.Sub(now); wait > 0 {
			t.mu.Unlock()
			return wait
		}
		var on []*link
		for _, l := range t.links {
			if l.conn.Client() && (l.rank(l.conn.Kind()) <= rankDoubt || l.renews()) {
				on = append(on, l)
			}
		}
		t.mu.Unlock()
		if len(on) == 0 {
			return time.Hour // the peer may, or another carrier will come
		}
		if !t.announce(kind, on) {
			t.mu.Lock()
			e.failed(now)
			t.mu.Unlock()
		}
	}
}

// announce announces a carrier on one of those, and begins to join it.
func (t *Tunnel) announce(kind wire.CarrierKind, on []*link) bool {
	for _, l := range on {
		session := l.conn.Session()
		n, ok := t.cfg.Next(session, kind)
		if !ok {
			continue
		}
		t.mu.Lock()
		if !t.over {
			l.conn.Send(wire.AppendFrame(nil, 0, wire.AddCarrier{Connection: n, Kind: kind}))
			t.joinLocked(session, n, kind)
		}
		t.mu.Unlock()
		return true
	}
	return false
}

// joinLocked begins to join a further carrier. The tunnel does well without.
func (t *Tunnel) joinLocked(session wire.SessionID, n uint16, kind wire.CarrierKind) {
	t.further.of(kind).joining++
	t.tasks.Go(func() {
		c, way, err := t.cfg.More(t.ctx, session, n, kind)
		if err == nil {
			if err = t.Attach(c, way); err != nil {
				c.Abort(err)
				if t.cfg.Left != nil {
					t.cfg.Left(session, err)
				}
			}
		}
		t.mu.Lock()
		e := t.further.of(kind)
		e.joining--
		if err != nil {
			e.failed(time.Now())
		}
		over := t.over
		t.mu.Unlock()
		t.wake()
		switch {
		case err == nil || over:
		case errors.Is(err, wire.ErrMalformed):
			why := &EndError{Reason: wire.ReasonProtocol, Text: err.Error()}
			t.finish(why, why)
		default:
			t.cfg.Log.Info("no further carrier", "session", session.String(), "carrier", n, "kind", kind.String(), "error", err)
		}
	})
}

// addCarrier takes the peer's word that it dials one more carrier.
func (t *Tunnel) addCarrier(l *link, m wire.AddCarrier) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case l.conn.Client():
		return fmt.Errorf("%w: CARRIER %d is not this side's to dial", wire.ErrMalformed, m.Connection)
	case t.further.tcp.joining+t.further.quic.joining >= 2*maxCarriers:
		return fmt.Errorf("%w: CARRIER %d: there are enough", wire.ErrMalformed, m.Connection)
	case t.over || t.cfg.More == nil:
		return nil
	}
	t.joinLocked(l.conn.Session(), m.Connection, m.Kind)
	return nil
}
