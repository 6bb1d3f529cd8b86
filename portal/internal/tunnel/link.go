package tunnel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/wire"
)

var errNoHello = fmt.Errorf("the peer proved itself but sent no HELLO within %v", joinTime)

// link is a carrier as its tunnel sees it.
type link struct {
	t     *Tunnel
	conn  *carrier.Conn
	way   path.Way
	taken time.Time   // when it was
	heard atomic.Bool // its HELLO has come
	dead  chan struct{}

	// streams is how many ends are attached; the tunnel's lock guards it.
	streams int
}

const (
	// maxCarriers bounds the carriers of a tunnel.
	maxCarriers = 4
	// maxJoins bounds the carriers in a tunnel's life, those that came to
	// nothing included: each costs this portal a dial.
	maxJoins = 64
	// joinPause is how long the tunnel does without a further carrier after
	// one could not be joined.
	joinPause = time.Minute
	// newTime is how long a carrier is new: if it breaks, its way may be at
	// fault. It is more than it takes to notice that nothing is answered.
	newTime = 20 * time.Second
)

// join makes a carrier, with the peer proven, and starts to serve it.
func (t *Tunnel) join(ctx context.Context, connection uint16) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	won, err := t.race(ctx, connection)
	if err != nil {
		cancel()
		return err
	}
	conn := won.conn
	won.way.Taken()
	l := &link{t: t, conn: conn, way: won.way, taken: time.Now(), dead: make(chan struct{})}
	// A peer that proves itself but never sends HELLO is given up as well.
	hello := context.AfterFunc(ctx, func() { conn.Abort(errNoHello) })
	joined := func() {
		l.heard.Store(true)
		hello()
		cancel()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		cancel()
		conn.Abort(ErrClosed)
		return ErrClosed
	}
	t.tasks.Go(func() {
		defer cancel()
		// finish closes it, and has a last frame to send.
		err := conn.Run(context.WithoutCancel(t.ctx), l, joined)
		hello()
		t.left(l, err)
	})
	t.links = append(t.links, l)
	if len(t.links) == 1 && !t.started {
		t.started = true
		t.restLocked()
		close(t.up)
	}
	return nil
}

// left takes away a carrier that has died, and with it what was attached.
func (t *Tunnel) left(l *link, err error) {
	close(l.dead)
	var lost []end
	t.mu.Lock()
	for i, other := range t.links {
		if other == l {
			t.links = append(t.links[:i:i], t.links[i+1:]...)
			break
		}
	}
	s := l.conn.Stats()
	t.past.Sent += s.Sent
	t.past.Received += s.Received
	t.past.Drops += s.Dropped
	for _, e := range t.ends {
		if e.carrier() == l {
			lost = append(lost, e)
		}
	}
	last := len(t.links) == 0
	over := t.over
	t.mu.Unlock()

	// A peer that closes before it has said a word has not found our HELLO.
	clean := err == nil || errors.Is(err, carrier.ErrClosed) && l.heard.Load()
	if !over && !clean && time.Since(l.taken) < newTime {
		l.way.Lost()
	}
	why := &EndError{Reason: wire.ReasonCarrierLost}
	if err == nil {
		err = errNoCarrier
	}
	why.Text = err.Error()
	for _, e := range lost {
		e.cut(why, false)
	}
	if over {
		return
	}
	if last {
		t.finish(why, why)
		return
	}
	t.cfg.Log.Info("carrier lost", "carrier", l.conn.Connection(), "streams", len(lost), "error", err)
}

// pickLocked chooses the carrier for what is opened next: the one with the
// fewest streams.
func (t *Tunnel) pickLocked() *link {
	var best *link
	for _, l := range t.links {
		if best == nil || l.streams < best.streams {
			best = l
		}
	}
	return best
}

// spreadLocked decides whether streams should have one more carrier to spread
// over, and joins it. Only the TLS client does.
func (t *Tunnel) spreadLocked() {
	have := len(t.links) + t.joins
	// A carrier is one processor's worth of AES-GCM at either portal.
	most := min(max(runtime.GOMAXPROCS(0), 2), maxCarriers)
	if !t.cfg.Client || t.over || have == 0 || have >= most || t.nextConn > maxJoins || len(t.ends) <= have || time.Now().Before(t.joinAfter) {
		return
	}
	n := t.nextConn
	t.nextConn++
	t.joins++
	t.links[0].conn.Send(wire.AppendFrame(nil, 0, wire.AddCarrier{Connection: n, Kind: wire.CarrierTCP}))
	t.tasks.Go(func() { t.joinMore(n) })
}

// joinMore joins a further carrier. The tunnel does well without.
func (t *Tunnel) joinMore(n uint16) {
	err := t.join(t.ctx, n)
	t.mu.Lock()
	t.joins--
	if err != nil {
		t.joinAfter = time.Now().Add(joinPause)
	}
	t.mu.Unlock()
	if err != nil && !errors.Is(err, ErrClosed) {
		t.cfg.Log.Info("no further carrier", "carrier", n, "error", err)
	}
}

// addCarrier takes the peer's word that it dials one more carrier.
func (t *Tunnel) addCarrier(m wire.AddCarrier) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.cfg.Client || m.Connection != t.nextConn:
		return fmt.Errorf("%w: CARRIER %d is not this side's to dial", wire.ErrMalformed, m.Connection)
	case len(t.links)+t.joins >= 2*maxCarriers || m.Connection > maxJoins:
		return fmt.Errorf("%w: CARRIER %d: there are enough", wire.ErrMalformed, m.Connection)
	case t.over:
		return nil
	}
	t.nextConn++
	t.joins++
	t.tasks.Go(func() { t.joinMore(m.Connection) })
	return nil
}
