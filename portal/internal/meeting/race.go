package meeting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/wire"
)

// quicIdle is how long a QUIC carrier carries nothing before it is asked whether
// the peer is still there.
const quicIdle = 280 * time.Second

var errAnotherWay = errors.New("another way was taken")

// taken is a carrier on the way that was taken.
type taken struct {
	conn  carrier.Conn
	way   path.Way
	hello wire.TunnelHello // the client's, on the server's side
}

// Close gives the carrier up.
func (t taken) Close() error {
	t.conn.Abort(errAnotherWay)
	return nil
}

// race tries the ways to the peer for one carrier and returns the carrier that
// both portals take.
//
// Each portal dials the ways in its own order, each a moment after the one
// before or when that has failed, and handshakes on every connection it gets: a
// connection says nothing about the far end, a handshake does. Which carrier is
// taken the TLS client decides alone: the first whose handshake completes. It
// closes the others before it has sent a frame on them, so that its HELLO is on
// one only, and the server, which sends nothing before that, takes the one where
// the HELLO is. So a carrier is never half joined: if what the client took
// breaks before its HELLO has arrived, the server finds nobody on the others
// either, and the carrier has failed on both sides.
//
// Nor does either wait for the other's order: whatever comes up later on one
// side, the handshake begins there when the other has dialled too, and until
// one completes no way is given up. The server waits for no round trip by this:
// HELLO follows the client's last words of the handshake at once.
func (m *Meeting) race(ctx context.Context, a attempt) (taken, error) {
	var mu sync.Mutex
	var failed error
	won, err := eyeballs.RaceAt(ctx, a.at, a.ways, func(ctx context.Context, w path.Way) (taken, error) {
		t, err := m.try(ctx, w)
		if err == nil {
			return t, nil
		}
		if m.Refused != nil && errors.Is(err, syscall.ECONNREFUSED) {
			m.Refused()
		}
		if len(a.ways) > 1 {
			err = fmt.Errorf("%v: %w", w, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err)
		}
		return taken{}, err
	})
	if err != nil && failed != nil {
		err = failed
	}
	return won, err
}

// try makes a carrier on one way.
func (m *Meeting) try(ctx context.Context, w path.Way) (taken, error) {
	conn, err := m.prove(ctx, w)
	if err != nil {
		return taken{}, err
	}
	t := taken{conn: conn, way: w}
	if m.client {
		return t, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, joinTime, errSlow)
	defer cancel()
	if t.hello, err = conn.AwaitHello(ctx); err != nil {
		return taken{}, err
	}
	return t, nil
}

// prove gets a connection on a way and has both portals proven on it.
func (m *Meeting) prove(ctx context.Context, w path.Way) (carrier.Conn, error) {
	conf := carrier.Config{Client: m.client, Session: m.Session.ID, Connection: w.Connection(), TLS: m.TLS}
	switch w := w.(type) {
	case path.StreamWay:
		raw, err := w.Dial(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := carrier.OverTCP(ctx, raw, conf)
		if err != nil && ctx.Err() == nil && strange(err) {
			m.Log.Warn("not the peer answers, or somebody changes what it says", "relay", m.Session.Relay.Name, "path", w.String(), "error", err)
		}
		return conn, err
	case path.PacketWay:
		conf.Since = time.Now()
		conn, err := w.Quic(ctx, m.client, m.TLS, carrier.QUICConfig())
		if err != nil {
			return nil, err
		}
		// The path keeps its UDP leg alive itself, below QUIC.
		conf.Idle = func() time.Duration { return quicIdle }
		return carrier.OverQUIC(ctx, conn, conf)
	}
	return nil, fmt.Errorf("%v is no way for a carrier", w)
}

// strange reports whether a handshake over TCP has failed by what was received,
// and not because the connection ended or because the other end has refused.
func strange(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "local error" // an alert that crypto/tls has sent
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return false
	}
	for _, ended := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, io.ErrClosedPipe, os.ErrDeadlineExceeded, context.Canceled} {
		if errors.Is(err, ended) {
			return false
		}
	}
	return true
}
