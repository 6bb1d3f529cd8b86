package exit

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// limits is what all streams and flows of one pair of ends may do together, by
// the terms of its grant.
type limits struct {
	exit     *Exit
	pair     grants.Pair
	up, down turns // towards the target, and back

	month atomic.Uint64  // bytes; 0: no limit
	used  *atomic.Uint64 // of the month; nil: never limited
	spent atomic.Bool    // the owner was told, this month

	mu      sync.Mutex // guards the following
	forward string
	streams uint32 // at once; 0: no limit
	open    uint32
	ids     map[wire.GrantID]int // of what is open
}

// limited reports whether the terms of a grant limit anything. What they do not
// limit costs nothing.
func limited(t grant.Terms) bool { return t.Rate != 0 || t.Streams != 0 || t.Month != 0 }

// metered reports whether bytes are to be counted.
func metered(t grant.Terms) bool { return t.Rate != 0 || t.Month != 0 }

// limitsOf returns the limits of a grant's pair, by the terms of the grant.
func (x *Exit) limitsOf(g grant.Grant) (*limits, error) {
	pair := grants.PairOf(g.Permission)
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.limits[pair]
	if l == nil {
		l = &limits{exit: x, pair: pair, ids: make(map[wire.GrantID]int)}
		x.limits[pair] = l
	}
	return l, l.set(g)
}

// set has the limits follow a grant.
func (l *limits) set(g grant.Grant) error {
	if g.Month != 0 && l.used == nil {
		if l.used = l.exit.usage.of(l.pair, g.Forward); l.used == nil {
			return &grants.Refused{Reason: wire.ReasonBusy, Detail: fmt.Sprintf("the bytes of %d forwards are counted this month, no more are", maxUsage)}
		}
	}
	l.month.Store(g.Month)
	l.up.setRate(g.Rate)
	l.down.setRate(g.Rate)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams, l.forward = g.Streams, g.Forward
	return nil
}

// begin counts one more stream or flow until ctx ends. A probe is not counted.
func (l *limits) begin(ctx context.Context, kind wire.OpenKind, id wire.GrantID) error {
	if limit, used := l.volume(); limit != 0 && used >= limit {
		return l.refusal("the %d bytes of the month are used up; it ends at %s", limit, l.exit.usage.next().Format(time.RFC3339))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams != 0 && l.open >= l.streams {
		return l.refusal("%d at once are allowed, and that many are open", l.streams)
	}
	if kind == wire.OpenProbe {
		return nil
	}
	l.open++
	l.ids[id]++
	context.AfterFunc(ctx, func() { l.end(id) })
	return nil
}

func (l *limits) refusal(format string, args ...any) error {
	return &dialError{wire.ReasonLimit, fmt.Sprintf(format, args...), fmt.Errorf("a limit of the grant: "+format, args...)}
}

func (l *limits) end(id wire.GrantID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.ids[id]--; l.ids[id] == 0 {
		delete(l.ids, id)
	}
}

// volume returns what the pair may carry in the month and what it has carried.
func (l *limits) volume() (limit, used uint64) {
	limit = l.month.Load()
	if limit == 0 {
		return 0, 0
	}
	l.exit.usage.turn(l.exit.now())
	return limit, l.used.Load()
}

// count counts bytes that are to be carried. It reports false if the month has no
// room for them: then it is used up, and the owner of the tunnels is about to cut
// what is open.
func (l *limits) count(n int) bool {
	limit, _ := l.volume()
	if limit == 0 {
		return true
	}
	l.exit.usage.changed.Store(true)
	for {
		old := l.used.Load()
		next := old + uint64(n)
		if next > limit {
			next = max(old, limit)
		}
		if !l.used.CompareAndSwap(old, next) {
			continue
		}
		if next == old+uint64(n) && next < limit {
			if l.spent.Load() { // in an earlier month
				l.spent.Store(false)
			}
			return true
		}
		if !l.spent.Swap(true) {
			l.exit.tell(l)
		}
		return next == old+uint64(n)
	}
}

// cut ends what is open: the month's bytes are used up.
func (l *limits) cut() {
	l.mu.Lock()
	ids := make([]wire.GrantID, 0, len(l.ids))
	for id := range l.ids {
		ids = append(ids, id)
	}
	forward, month := l.forward, l.month.Load()
	l.mu.Unlock()
	n := l.exit.Cut(ids, wire.ReasonLimit)
	l.exit.log.Warn("the month's bytes of a forward are used up", "forward", forward, "entry", l.pair.Entry, "target", l.pair.Target.String(), "bytes", month, "until", l.exit.usage.next(), "cut", n)
}

// meteredConn is a stream's connection to its target that keeps to limits. It has
// no descriptor of its own to be read by: the tunnel reads and writes it as it
// does any, and waits.
type meteredConn struct {
	net.Conn
	limits   *limits
	up, down share
	once     sync.Once
	done     chan struct{}
}

func (l *limits) stream(conn net.Conn) net.Conn {
	return &meteredConn{Conn: conn, limits: l, done: make(chan struct{})}
}

// Read implements net.Conn. What it has read waits for its turn: so nothing is
// promised that does not come.
func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), c.limits.down.most())])
	if n > 0 && !c.pass(&c.limits.down, &c.down, n) {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements net.Conn.
func (c *meteredConn) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		turn := b[:min(len(b), c.limits.up.most())]
		if !c.pass(&c.limits.up, &c.up, len(turn)) {
			return n, net.ErrClosed
		}
		var m int
		m, err = c.Conn.Write(turn)
		n, b = n+m, b[len(turn):]
	}
	return n, err
}

// pass waits until bytes may pass. It reports false if the connection is closed
// meanwhile, as it will be where the month has no more for it.
func (c *meteredConn) pass(t *turns, s *share, n int) bool {
	if !c.limits.count(n) {
		<-c.done
		return false
	}
	return t.wait(s, n, c.done)
}

// Close implements net.Conn.
func (c *meteredConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// CloseWrite ends what goes to the target, where there is such a thing.
func (c *meteredConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SetLinger says what Close does, where there is such a choice.
func (c *meteredConn) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}

// meteredFlow is a flow's socket that keeps to limits: datagrams above them are
// dropped.
type meteredFlow struct {
	net.Conn
	limits   *limits
	up, down share
}

func (l *limits) flow(conn net.Conn) net.Conn { return &meteredFlow{Conn: conn, limits: l} }

// Read implements net.Conn.
func (f *meteredFlow) Read(b []byte) (int, error) {
	for {
		n, err := f.Conn.Read(b)
		if err != nil || f.pass(&f.limits.down, &f.down, n) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (f *meteredFlow) Write(b []byte) (int, error) {
	if !f.pass(&f.limits.up, &f.up, len(b)) {
		return len(b), nil
	}
	return f.Conn.Write(b)
}

func (f *meteredFlow) pass(t *turns, s *share, n int) bool {
	if t.try(s, n) && f.limits.count(n) {
		return true
	}
	f.limits.exit.limitedOut.Add(1)
	return false
}
