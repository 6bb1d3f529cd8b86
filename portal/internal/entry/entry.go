// Package entry opens the listeners of this portal's grants and hands what
// they accept to the tunnels.
//
// An Entry owns one forward per pair of ends; a forward owns its listener, and
// every connection that it accepted until a tunnel has taken it. A listener that
// cannot be opened is tried again: its forward is down meanwhile, and says why.
package entry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/portal/internal/vanish"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// tunnelTime bounds how long an accepted connection waits for a tunnel.
const tunnelTime = 20 * time.Second

// Tunnels gives tunnels to other portals; *peers.Pool does.
type Tunnels interface {
	Tunnel(ctx context.Context, to grant.Party, id wire.GrantID) (*tunnel.Tunnel, error)
}

// Entry holds the forwards of which this portal is the entry. Its methods are
// safe for concurrent use.
type Entry struct {
	tunnels  Tunnels
	list     allow.List
	log      *slog.Logger
	vanished *vanish.Watch   // of clients elsewhere
	ctx      context.Context // of all forwards
	stop     context.CancelFunc
	tasks    sync.WaitGroup

	mu       sync.Mutex // guards the following
	closed   bool
	forwards map[grants.Pair]*forward
}

// New returns an Entry that listens only where list admits.
func New(tunnels Tunnels, list allow.List, log *slog.Logger) *Entry {
	ctx, stop := context.WithCancel(context.Background())
	return &Entry{tunnels: tunnels, list: list, log: log, vanished: vanish.New(), ctx: ctx, stop: stop, forwards: make(map[grants.Pair]*forward)}
}

// Run serves until ctx is cancelled. Then it closes the listeners and waits until
// all that was accepted has ended, clients of datagrams included: the owner
// closes the tunnels when it has waited for long enough.
func (e *Entry) Run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	e.closed = true
	for _, f := range e.forwards {
		f.drain()
	}
	e.mu.Unlock()
	e.tasks.Wait()
	e.stop()
	return nil
}

// Apply opens, renews or closes the forward of a change. It does not wait for
// connections to end.
func (e *Entry) Apply(c grants.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := grants.PairOf(c.Grant.Permission)
	f := e.forwards[key]
	switch c.Kind {
	case grants.Begin:
		if e.closed || f != nil {
			return
		}
		f = newForward(e, c.Grant)
		e.forwards[key] = f
		e.tasks.Go(f.run)
	case grants.Renew:
		if f != nil {
			f.renew(c.Grant)
		}
	case grants.End:
		if f == nil {
			return
		}
		f.close()
		delete(e.forwards, key)
		// Its address is free now; another forward may have waited for it.
		for _, other := range e.forwards {
			other.retry()
		}
	}
}

// State is a forward as "status" shows it.
type State struct {
	Grant     grant.Grant
	Listening bool
	Error     string    // why not
	Since     time.Time // of this state
	Accepted  uint64    // connections and flows
	Refused   uint64    // of these, how many came to nothing
	Dropped   uint64    // datagrams that found no room
}

// States returns the state of every forward.
func (e *Entry) States() []State {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]State, 0, len(e.forwards))
	for _, f := range e.forwards {
		list = append(list, f.state())
	}
	return list
}

// Find returns the grant of the forward that joins standard input here with a
// target behind another portal.
func (e *Entry) Find(exit string, target endpoint.Endpoint) (grant.Grant, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for pair, f := range e.forwards {
		if pair.Listen.Scheme() == endpoint.Stdio && pair.Exit.Name == exit && pair.Target == target {
			return f.grant(), true
		}
	}
	return grant.Grant{}, false
}

// Carry joins conn, of which it takes ownership, with the target of g and
// returns when both halves have ended. The error is that of Tunnels, an
// *tunnel.EndError, or that of ctx, which ends the wait for a tunnel.
func (e *Entry) Carry(ctx context.Context, g grant.Grant, source netip.AddrPort, conn net.Conn) (tunnel.Totals, error) {
	now := make(chan struct{})
	close(now)
	return e.carry(ctx, now, g, source, conn)
}

// carry is Carry that opens nothing until before is closed. It looks for a
// tunnel meanwhile.
func (e *Entry) carry(ctx context.Context, before <-chan struct{}, g grant.Grant, source netip.AddrPort, conn net.Conn) (tunnel.Totals, error) {
	id, signed := g.ID(), g.AppendTo(nil)
	var totals tunnel.Totals
	err := e.with(ctx, g, func(ctx context.Context, t *tunnel.Tunnel) (err error) {
		select {
		case <-before:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		totals, err = t.OpenStream(ctx, id, signed, source, conn)
		return err
	})
	var end *tunnel.EndError
	if err != nil && !errors.As(err, &end) {
		reset(conn) // no tunnel has taken it
	}
	return totals, err
}

// with calls use with a tunnel to the exit of g, and again with another as
// long as the one before had closed before anything was opened on it.
func (e *Entry) with(ctx context.Context, g grant.Grant, use func(context.Context, *tunnel.Tunnel) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tunnelTime, &peers.Unavailable{Reason: wire.ReasonTimeout, Detail: "no tunnel within " + tunnelTime.String()})
	defer cancel()
	for {
		t, err := e.tunnels.Tunnel(ctx, g.Exit, g.ID())
		if err != nil {
			return err
		}
		if err = use(ctx, t); !errors.Is(err, tunnel.ErrClosed) {
			return err
		}
		select {
		case <-t.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reset closes a connection so that its application cannot take it for a
// clean end.
func reset(conn net.Conn) {
	if l, ok := conn.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	conn.Close()
}
