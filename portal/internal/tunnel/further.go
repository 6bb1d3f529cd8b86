package tunnel

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
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

// want is a carrier that a tunnel would have.
type want struct {
	kind   wire.CarrierKind
	direct bool
}

func (l *link) want() want { return want{l.conn.Kind(), l.direct} }

// further is what a tunnel knows of carriers to come; its lock guards it.
type further map[want]*effort

// effort is the effort for carriers of one kind on one path.
type effort struct {
	joining int       // carriers that are being joined
	after   time.Time // no other before
	pause   time.Duration
	none    bool // there was none to be had, when the tunnel had none either
}

func (f further) of(w want) *effort {
	if f[w] == nil {
		f[w] = &effort{}
	}
	return f[w]
}

// joining is how many carriers are being joined.
func (f further) joining() (n int) {
	for _, e := range f {
		n += e.joining
	}
	return n
}

// failed has the next one wait, longer each time.
func (e *effort) failed(now time.Time) {
	e.pause = min(max(2*e.pause, firstPause), lastPause)
	e.after = now.Add(e.pause)
}

// ended notes that a carrier died after it had lived so long.
func (f further) ended(l *link, lived time.Duration) {
	e := f.of(l.want())
	if lived >= lastsTime {
		e.pause = 0
	} else {
		e.failed(time.Now())
	}
}

// wantsLocked says what the tunnel would have one more of, on the path that is taken
// now: a carrier for streams if they have none of TCP, one for flows if they have none
// of QUIC, or one more to spread streams over; and on any path one in place of one that is to be
// made anew. What cannot be had is tried again now and then.
func (t *Tunnel) wantsLocked() (list []want) {
	if t.cfg.Next == nil || t.cfg.More == nil || t.over || t.asked || t.drained != nil {
		return nil
	}
	home := t.pickLocked(wire.CarrierTCP, nil)
	if home == nil {
		return nil
	}
	have := make(map[want]int) // and are to stay
	var old []*link            // to be made anew
	for _, l := range t.links {
		if l.renews() {
			old = append(old, l)
		}
		if !l.retired.Load() && !l.renew.Load() {
			have[l.want()]++
		}
	}
	for w, e := range t.further {
		if e.none && have[w] > 0 { // it came by itself, so others may be had
			e.none, e.after, e.pause = false, time.Time{}, 0
		}
		have[w] += e.joining
	}
	tcp, quic := want{wire.CarrierTCP, home.direct}, want{wire.CarrierQUIC, home.direct}
	// A carrier is one processor's worth of AES-GCM at either portal.
	most := min(max(runtime.GOMAXPROCS(0), 2), maxCarriers)
	if n := have[tcp]; t.streams > 0 && n == 0 || n > 0 && n < most && t.streams > n {
		list = append(list, tcp)
	}
	if t.streams < len(t.ends) && have[quic] == 0 {
		list = append(list, quic)
	}
	for _, l := range old {
		if (len(t.ends) > 0 || l.direct) && have[want{wire.CarrierTCP, l.direct}]+have[want{wire.CarrierQUIC, l.direct}] == 0 {
			list = append(list, l.want())
		}
	}
	return list
}

// grow joins the carriers that are wanted, and returns when it is to be called
// again.
func (t *Tunnel) grow(now time.Time) (wait time.Duration) {
	for {
		wait = time.Hour
		t.mu.Lock()
		list := t.wantsLocked()
		t.mu.Unlock()
		announced := false
		for _, w := range list {
			t.mu.Lock()
			e := t.further.of(w)
			after := e.after.Sub(now)
			var on []*link
			for _, l := range t.links {
				if l.conn.Client() && l.direct == w.direct && (l.rank(l.conn.Kind()) < rankRetired || l.renews()) {
					on = append(on, l)
				}
			}
			t.mu.Unlock()
			switch {
			case len(on) == 0: // the peer may, or another carrier will come
			case after > 0:
				wait = min(wait, after)
			case t.announce(w, on):
				announced = true
			default:
				t.mu.Lock()
				e.failed(now)
				e.none = !slices.ContainsFunc(t.links, func(l *link) bool { return l.want() == w })
				wait = min(wait, e.pause)
				t.mu.Unlock()
			}
			if announced {
				break
			}
		}
		if !announced {
			return wait
		}
	}
}

// announce announces a carrier on one of those, and begins to join it.
func (t *Tunnel) announce(w want, on []*link) bool {
	for _, l := range on {
		session := l.conn.Session()
		n, ok := t.cfg.Next(session, w.kind)
		if !ok {
			continue
		}
		t.mu.Lock()
		if !t.over {
			l.conn.Send(wire.AppendFrame(nil, 0, wire.AddCarrier{Connection: n, Kind: w.kind}))
			t.joinLocked(session, n, w)
		}
		t.mu.Unlock()
		return true
	}
	return false
}

// joinLocked begins to join a further carrier. The tunnel does well without.
func (t *Tunnel) joinLocked(session wire.SessionID, n uint16, w want) {
	t.further.of(w).joining++
	t.tasks.Go(func() {
		c, way, err := t.cfg.More(t.ctx, session, n, w.kind)
		if err == nil {
			if err = t.Attach(c, way); err != nil {
				c.Abort(err)
				if t.cfg.Left != nil {
					t.cfg.Left(session, err)
				}
			}
		}
		t.mu.Lock()
		e := t.further.of(w)
		e.joining--
		log := t.cfg.Log.Info
		if e.pause > 0 || w.direct {
			log = t.cfg.Log.Debug // it was said, or NATs let no other through, and is tried ever again
		}
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
			log("no further carrier", "session", session.String(), "carrier", n, "kind", w.kind.String(), "error", err)
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
	case t.further.joining() >= 2*maxCarriers:
		return fmt.Errorf("%w: CARRIER %d: there are enough", wire.ErrMalformed, m.Connection)
	case t.over || t.cfg.More == nil:
		return nil
	}
	t.joinLocked(l.conn.Session(), m.Connection, want{m.Kind, l.direct})
	return nil
}
