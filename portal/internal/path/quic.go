package path

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/wire"
)

// quicWay is QUIC over the session's UDP legs.
type quicWay struct {
	*race
	anew bool // the leg is bound anew before

	mu    sync.Mutex // guards the following, of the last Quic
	began time.Time
	up    time.Time // when it succeeded
	addr  netip.AddrPort
}

func (w *quicWay) String() string         { return UDPLeg.String() }
func (w *quicWay) Kind() wire.CarrierKind { return wire.CarrierQUIC }

// Quic implements PacketWay. The TLS client's first packet goes right behind
// the request that binds its leg: the relay takes them in this order, and holds
// the packet if the other portal is not bound yet.
func (w *quicWay) Quic(ctx context.Context, client bool, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	w.note(func() { w.began, w.up = time.Now(), time.Time{} })
	l := w.race.leg
	var expect func(*packet.Endpoint)
	if !client {
		expect = func(e *packet.Endpoint) { e.Expect(secure, config) }
	}
	b, err := l.bind(client, expect)
	if err != nil {
		return nil, fmt.Errorf("bind leg at relay %q: %w", l.Relay(), err)
	}
	if w.anew {
		b.refresh()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.ctx, func() { cancel(errLegClosed) })()
	began := time.Now()
	defer time.AfterFunc(unheardTime, func() {
		if !b.heardSince(began) {
			cancel(errUnheard)
		}
	}).Stop()
	var conn *quic.Conn
	if client {
		conn, err = b.dial(ctx, secure, config)
	} else {
		conn, err = b.accept(ctx)
	}
	if err != nil {
		l.unbindLater(b)
		return nil, fmt.Errorf("QUIC over relay %q: %w", l.Relay(), err)
	}
	w.note(func() { w.up, w.addr = time.Now(), b.remote() })
	b.carries(1)
	context.AfterFunc(conn.Context(), func() {
		b.carries(-1)
		l.unbind(b)
	})
	return conn, nil
}

func (w *quicWay) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *quicWay) Taken() {
	l := w.race.leg
	w.mu.Lock()
	addr, took := w.addr, time.Since(w.began)
	w.mu.Unlock()
	l.take(candidate{mode: UDPLeg, addr: addr}, w.race.connection)
	l.trust(quicBad, true)
	if w.race.packet != nil || w.race.splice != nil {
		l.finder.memory.won(l.pairing(), true)
	}
	if w.race.packet != nil {
		w.race.packet.beaten(took)
	}
}

func (w *quicWay) Lost() { w.race.leg.doubt(quicBad, true, "the carrier on it broke at once") }

var errLegClosed = errors.New("the leg was closed")

// heardSince reports whether the relay has answered since then.
func (b *binding) heardSince(began time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.answered:
		return true
	default:
		return b.bound.After(began)
	}
}

// dial makes a QUIC connection as soon as the relay has challenged the leg.
func (b *binding) dial(ctx context.Context, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	b.mu.Lock()
	answered := b.answered
	b.mu.Unlock()
	select {
	case <-answered:
	case <-ctx.Done():
		return nil, fmt.Errorf("bind UDP leg at %v: no answer: %w", b.remote(), context.Cause(ctx))
	}
	b.mu.Lock()
	e := b.endpoint
	b.mu.Unlock()
	return e.Dial(ctx, secure, config)
}

// accept waits for a QUIC connection of the other portal.
func (b *binding) accept(ctx context.Context) (*quic.Conn, error) {
	for {
		b.mu.Lock()
		e := b.endpoint
		b.mu.Unlock()
		conn, err := e.Accept(ctx)
		switch {
		case !errors.Is(err, packet.ErrClosed):
			return conn, err
		case b.ctx.Err() != nil:
			return nil, errLegClosed
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		// The leg has moved to another of the relay's addresses.
	}
}
