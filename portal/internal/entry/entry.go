// Package entry opens the listeners of this portal's grants and hands what
// they accept to the tunnels.
//
// An Entry owns one forward per listener, which has one target or several; a
// forward owns its listener, and every connection that it accepted until a tunnel
// has taken it. A listener that cannot be opened is tried again: its forward is
// down meanwhile, and says why.
package entry

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/portal/internal/users"
	"github.com/netport/netport/portal/internal/vanish"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// tunnelTime bounds how long an accepted connection waits for a tunnel.
const tunnelTime = 20 * time.Second

// Tunnels gives tunnels to other portals; *peers.Pool does.
type Tunnels interface {
	Tunnel(ctx context.Context, to string, id wire.GrantID) (*tunnel.Tunnel, error)
}

// Config is what an Entry is made from.
type Config struct {
	Tunnels Tunnels
	List    allow.List // of where the portal's owner lets it listen
	Users   users.List // of this machine, that may connect there
	// Reach reports whether another portal can be reached now, as far as is known.
	// It is asked where there are several targets.
	Reach func(peer string) bool
	Log   *slog.Logger
}

// Entry holds the forwards of which this portal is the entry. Its methods are
// safe for concurrent use.
type Entry struct {
	Config
	log      *slog.Logger
	vanished *vanish.Watch   // of clients elsewhere
	ctx      context.Context // of all forwards
	stop     context.CancelFunc
	tasks    sync.WaitGroup

	mu       sync.Mutex // guards the following
	closed   bool
	forwards map[place]*forward

	owner atomic.Pointer[owned] // what the portal's owner lets it do
}

// owned is Config.List and Config.Users, as they are now.
type owned struct {
	list  allow.List
	users users.List
}

// place is where a forward listens. Two pairs of ends at one place are targets of
// one listener. Each of those whose listener is a command line has a place of its
// own: the command names its target.
type place struct {
	listen endpoint.Endpoint
	pair   grants.Pair // of a command line; else zero
}

func placeOf(p grants.Pair) place {
	if p.Listen.Scheme() == endpoint.Stdio {
		return place{p.Listen, p}
	}
	return place{listen: p.Listen}
}

// New returns an Entry; Run must follow.
func New(c Config) *Entry {
	ctx, stop := context.WithCancel(context.Background())
	e := &Entry{Config: c, log: c.Log, vanished: vanish.New(), ctx: ctx, stop: stop, forwards: make(map[place]*forward)}
	e.owner.Store(&owned{c.List, c.Users})
	return e
}

// SetOwner changes Config.List and Config.Users: listeners that are not allowed any more
// are closed when it returns, and those that are now are opened. Connections that they
// had accepted go on; clients of datagrams do not.
func (e *Entry) SetOwner(list allow.List, users users.List) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.owner.Swap(&owned{list, users})
	anew := before.users.Written() != users.Written() // then other listeners are possible
	for key, f := range e.forwards {
		if anew || list.Listen(key.listen) != nil {
			f.reopen()
		}
		f.retry()
	}
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

// Apply opens, renews or closes the target of a change, and its listener with the
// first and the last. It does not wait for connections to end.
func (e *Entry) Apply(c grants.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := placeOf(grants.PairOf(c.Grant.Permission))
	f := e.forwards[key]
	switch {
	case c.Kind != grants.End && f != nil:
		f.grant(c.Grant)
	case c.Kind == grants.Begin && !e.closed:
		f = newForward(e, c.Grant)
		e.forwards[key] = f
		e.tasks.Go(f.run)
	case c.Kind == grants.End && f != nil && f.revoke(c.Grant):
		f.close()
		delete(e.forwards, key)
		// Its address is free now; another forward may have waited for it.
		for _, other := range e.forwards {
			other.retry()
		}
	}
}

// State is a target of a forward as "status" shows it. The counters are those of
// its listener.
type State struct {
	Grant     grant.Grant
	Listening bool
	Error     string    // why not
	Since     time.Time // of this state
	Targets   int       // of the listener
	InUse     bool      // new connections go to this target
	Failed    string    // why this target was passed over last; empty: it was not
	Accepted  uint64    // connections and flows
	Refused   uint64    // of these, how many came to nothing
	Forbidden uint64    // clients that were refused for their address: connections and datagrams
	Foreign   uint64    // connections of users that may not connect here
	Dropped   uint64    // datagrams that found no room
}

// States returns the state of every target of every forward.
func (e *Entry) States() (list []State) {
	e.mu.Lock()
	forwards := slices.Collect(maps.Values(e.forwards))
	e.mu.Unlock()
	for _, f := range forwards {
		list = append(list, f.states()...)
	}
	return list
}

// Find returns the grant of the forward that joins standard input here with a
// target behind another portal.
func (e *Entry) Find(exit string, target endpoint.Endpoint) (grant.Grant, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, f := range e.forwards {
		if key.pair.Exit == exit && key.pair.Target == target {
			return f.first(), true
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
func (e *Entry) carry(ctx context.Context, before <-chan struct{}, g grant.Grant, source netip.AddrPort, conn net.Conn) (totals tunnel.Totals, err error) {
	id, signed := g.ID(), g.AppendTo(nil)
	err = e.with(ctx, tunnelTime, g, func(ctx context.Context, t *tunnel.Tunnel) (err error) {
		if err = await(ctx, before); err == nil {
			totals, err = t.OpenStream(ctx, id, signed, source, conn)
		}
		return err
	})
	var end *tunnel.EndError
	if err != nil && !errors.As(err, &end) {
		reset(conn) // no tunnel has taken it
	}
	return totals, err
}

// offer is carry for a conn that another target may take: before took is called it
// is untouched.
func (e *Entry) offer(ctx context.Context, before <-chan struct{}, g grant.Grant, source netip.AddrPort, conn net.Conn, took func()) (totals tunnel.Totals, err error) {
	id, signed := g.ID(), g.AppendTo(nil)
	err = e.with(ctx, offerTime, g, func(ctx context.Context, t *tunnel.Tunnel) (err error) {
		if err = await(ctx, before); err == nil {
			totals, err = t.OfferStream(ctx, id, signed, source, conn, took)
		}
		return err
	})
	return totals, err
}

// await waits until before is closed.
func await(ctx context.Context, before <-chan struct{}) error {
	select {
	case <-before:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// with calls use with a tunnel to the exit of g, and again with another as
// long as the one before had closed before anything was opened on it.
func (e *Entry) with(ctx context.Context, limit time.Duration, g grant.Grant, use func(context.Context, *tunnel.Tunnel) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &peers.Unavailable{Reason: wire.ReasonTimeout, Detail: "no tunnel within " + limit.String()})
	defer cancel()
	for {
		t, err := e.Tunnels.Tunnel(ctx, g.Exit.Name, g.ID())
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
