package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// grows has both tunnels join further carriers in the session of the direct one that they get next.
type grows struct {
	*pair
	mu      sync.Mutex
	session wire.SessionID // of the direct carriers
	next    uint16
}

// newGrows returns two tunnels with a carrier by a relay and a direct one.
func newGrows(t *testing.T, exit Handler) *grows {
	g := &grows{}
	direct := func(more func(context.Context, wire.SessionID, uint16, wire.CarrierKind) (carrier.Conn, Way, error)) func(context.Context, wire.SessionID, uint16, wire.CarrierKind) (carrier.Conn, Way, error) {
		return func(ctx context.Context, session wire.SessionID, n uint16, kind wire.CarrierKind) (carrier.Conn, Way, error) {
			c, _, err := more(ctx, session, n, kind)
			return c, theWay{direct: true}, err
		}
	}
	g.pair = newPair(t, exit, func(client, server *Config) {
		client.Next = func(session wire.SessionID, kind wire.CarrierKind) (uint16, bool) {
			g.mu.Lock()
			defer g.mu.Unlock()
			if session != g.session || kind != wire.CarrierTCP {
				return 0, false
			}
			g.next++
			return g.next, true
		}
		client.More = direct(func(ctx context.Context, session wire.SessionID, n uint16, _ wire.CarrierKind) (carrier.Conn, Way, error) {
			a, b := carriertest.TCP(t)
			c, s, err := carriertest.OverTCP(ctx, a, b, g.meet.client, g.meet.server, session, n)
			if err != nil {
				return nil, nil, err
			}
			(&road{client: c, server: s}).greet()
			g.at(n) <- s
			return c, nil, nil
		})
		server.More = direct(server.More)
	})
	return g
}

// begin gives both the direct carrier.
func (g *grows) begin() {
	r := g.connectDirect(overTCP(g.t))
	g.mu.Lock()
	g.session = r.client.Session()
	g.mu.Unlock()
	g.client.wake()
}

// directs returns the numbers of a tunnel's direct carriers that are to stay.
func directs(tun *Tunnel) (list []uint16) {
	for _, c := range tun.Stats().Each {
		if c.Direct && !c.Retired {
			list = append(list, c.Connection)
		}
	}
	return list
}

// works wants a word to come through.
func works(t *testing.T, app, remote net.Conn) {
	t.Helper()
	if _, err := app.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(remote, b[:]); err != nil || b[0] != 'x' {
		t.Errorf("%q, %v", b, err)
	}
}

// Streams on a direct path spread over further carriers, too, also where there were none to be had before it came; when one
// dies, its own go on. All are made anew before what they were proven with ends, as many as there were.
func TestDirectCarriersAreSeveral(t *testing.T) {
	at := make(targets, 16)
	g := newGrows(t, at)
	g.client.mu.Lock()
	g.client.further[want{wire.CarrierTCP, true}] = &effort{none: true, pause: time.Hour, after: time.Now().Add(time.Hour)}
	g.client.mu.Unlock()
	g.begin()
	var apps, remotes []net.Conn
	for range 4 {
		app, _ := open(t, g.client, benchGrant)
		remote := <-at
		t.Cleanup(func() { remote.Close() })
		apps, remotes = append(apps, app), append(remotes, remote)
		if len(apps) == 2 {
			waitFor(t, "a second direct carrier", func() bool { return len(directs(g.client)) == 2 && len(directs(g.server)) == 2 })
		}
	}
	waitFor(t, "streams on each", func() bool {
		for _, c := range g.client.Stats().Each {
			if c.Direct && c.Streams == 0 {
				return false
			}
		}
		return true
	})
	g.client.mu.Lock()
	for _, l := range g.client.links {
		if l.direct && l.conn.Connection() == 1 {
			l.conn.Abort(errors.New("the test breaks it"))
		}
	}
	g.client.mu.Unlock()
	for i := range apps {
		works(t, apps[i], remotes[i])
	}
	old := time.Now()
	judge := func(c Proof) Verdict {
		if c.Direct && c.Since.Before(old) {
			return Replace
		}
		return Keep
	}
	g.client.Review(judge)
	waitFor(t, "others in place of all that there were", func() bool {
		n := 0
		g.client.Review(func(c Proof) Verdict {
			if c.Direct {
				n++
			}
			if judge(c) == Replace {
				n = -100
			}
			return judge(c)
		})
		return n >= 2
	})
	for i := range apps {
		works(t, apps[i], remotes[i])
	}
}

// A direct carrier that nothing is open on is made anew, too.
func TestIdleDirectCarrierIsMadeAnew(t *testing.T) {
	g := newGrows(t, refuseAll)
	g.begin()
	old := time.Now()
	g.client.Review(func(c Proof) Verdict {
		if c.Direct && c.Since.Before(old) {
			return Replace
		}
		return Keep
	})
	waitFor(t, "another in its place", func() bool { l := directs(g.client); return len(l) == 1 && l[0] == 1 })
}
