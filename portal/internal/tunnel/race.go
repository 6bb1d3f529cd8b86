package tunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/eyeballs"
	"github.com/netport/netport/portal/internal/path"
)

var errOther = errors.New("another way was taken")

// candidate is a carrier that has come up on a way and may be taken.
type candidate struct {
	conn *carrier.Conn
	way  path.Way
}

// Close gives the carrier up.
func (c candidate) Close() error {
	c.conn.Abort(errOther)
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
func (t *Tunnel) race(ctx context.Context, connection uint16) (candidate, error) {
	ways, apart := t.cfg.Ways(connection)
	var mu sync.Mutex
	var failed error
	won, err := eyeballs.Race(ctx, apart, ways, func(ctx context.Context, w path.Way) (candidate, error) {
		c, err := t.try(ctx, w, connection)
		if err == nil {
			return c, nil
		}
		if len(ways) > 1 {
			err = fmt.Errorf("%v: %w", w, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err)
		}
		return candidate{}, err
	})
	if err != nil && failed != nil {
		err = failed
	}
	if err != nil {
		return candidate{}, fmt.Errorf("join carrier %d: %w", connection, err)
	}
	return won, nil
}

// try makes a carrier on one way.
func (t *Tunnel) try(ctx context.Context, w path.Way, connection uint16) (candidate, error) {
	raw, err := w.Dial(ctx)
	if err != nil {
		return candidate{}, err
	}
	conn, err := carrier.Handshake(ctx, raw, carrier.Config{
		Client: t.cfg.Client, Session: t.cfg.Session, Connection: connection, TLS: t.cfg.TLS,
	})
	if err == nil && !t.cfg.Client {
		err = conn.AwaitHello(ctx)
	}
	if err != nil {
		return candidate{}, err
	}
	return candidate{conn, w}, nil
}
