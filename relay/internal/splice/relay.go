// Package splice is the relay's TCP legs in user space: it takes connections,
// lets their prefaces be judged by package lease, and joins the two legs of a
// connection with splice(2). Half-close and reset are carried through. A shared
// port takes the same preface bare, or inside TLS.
//
// A connection goes through three hands:
//
//	accepted --preface--> waiting for the other leg --it comes--> pair
//	 10 s in all            30 s, at most 4,096       until both have ended, it idles, or the session ends
//
// The legs of tickets wait for 5 minutes, apart from the others, also at most
// 4,096: they are there for a portal that comes when it can.
//
// The Relay owns every socket and goroutine of these; Run waits for all.
package splice

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/logs"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/source"
)

const (
	// HandshakeTimeout is how long a connection may take from its acceptance
	// to the end of its preface, TLS included.
	HandshakeTimeout = 10 * time.Second
	// WaitTimeout is how long a proven leg waits for the other one, and
	// StandTimeout how long one of a ticket does.
	WaitTimeout  = 30 * time.Second
	StandTimeout = 5 * time.Minute
	// MaxWaiting is how many proven legs may wait at once, and as many of tickets.
	// Beyond that the oldest is closed: the other leg of a real one comes within a
	// round trip.
	MaxWaiting = 4096
	// MaxPairs is how many connections of one session may be joined at once.
	MaxPairs = 64
	// meetingGrace is how long a leg of a Meeting may be silent before a newer one
	// says that it is dead: the TLS server has nothing to say for a round trip.
	meetingGrace = 2 * time.Second
)

// Config is what a Relay works with. All fields but TLS and Recheck are needed.
type Config struct {
	Listen  []netip.Addr // addresses of all listeners; none: every address of the machine
	Leases  *lease.Table
	Sources *source.Rules
	Drops   *drop.Counters
	TLS     *tls.Config // of the shared port; nil: bare prefaces only
	// Recheck reports whether a portal that was accepted with TLS has been revoked
	// since; see Review.
	Recheck func(presented []*x509.Certificate) error
	Log     *slog.Logger
	Now     func() time.Time
	// Take opens the session of a ticket that a leg from source has proven, unless
	// it is open, or says why not.
	Take func(k lease.Ticket, source netip.Addr) drop.Reason
}

// Relay holds the TCP legs of all sessions.
type Relay struct {
	cfg       Config
	handshake time.Duration // HandshakeTimeout, but for tests
	ctx       context.Context
	cancel    context.CancelFunc
	gate      gate.Gate
	pipes     pipes
	running   sync.WaitGroup // all goroutines but those of sessions
	pairs     atomic.Int64
	reviews   atomic.Uint64 // calls of Review
	taken     atomic.Uint64 // connections that another daemon has handed over
	seldom    *slog.Logger  // of what stays wrong with those; set by Run

	mu       sync.Mutex // guards the following
	closed   bool
	sessions map[wire.SessionID]*session
	past     lease.Traffic // of sessions that are gone
	waiting  queue
	standing queue // legs of tickets
}

// session is one session's sockets. Its fields are guarded by Relay.mu, but
// for the traffic.
type session struct {
	lease.Session
	listeners []*net.TCPListener // none: the shared port only
	waiting   map[leg.ID]*half
	pairs     map[*pair]struct{}
	traffic   [2]atomic.Uint64
	running   sync.WaitGroup // its listeners and its pairs
}

// half is a proven leg that waits for the other. Its session and a queue both
// hold it.
type half struct {
	id      leg.ID
	session *session
	conn    *conn
	since   time.Time
	queue   *queue
	queued  *list.Element
}

// queue is legs that may wait equally long.
type queue struct {
	list.List // of *half, the oldest first
	room      int
	timeout   time.Duration
}

// New returns a Relay without sessions. It must be Run.
func New(cfg Config) *Relay {
	ctx, cancel := context.WithCancel(context.Background())
	return &Relay{
		cfg: cfg, handshake: HandshakeTimeout, ctx: ctx, cancel: cancel,
		waiting: queue{room: MaxWaiting, timeout: WaitTimeout}, standing: queue{room: MaxWaiting, timeout: StandTimeout},
		sessions: make(map[wire.SessionID]*session),
	}
}

// Listen opens a TCP port of the relay at each of its addresses.
func (r *Relay) Listen(port uint16) ([]*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: retrySoon}
	lc.SetMultipathTCP(false) // splice(2) wants plain sockets
	hosts := []string{""}
	if len(r.cfg.Listen) > 0 {
		hosts = nil
		for _, a := range r.cfg.Listen {
			hosts = append(hosts, a.String())
		}
	}
	var opened []*net.TCPListener
	for _, host := range hosts {
		l, err := lc.Listen(r.ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			closeAll(opened)
			return nil, err
		}
		opened = append(opened, l.(*net.TCPListener))
	}
	return opened, nil
}

// maxRetry is how soon after a break of the path TCP finds that it is over.
const maxRetry = 2 * time.Second

// retrySoon bounds how long the kernel waits, on what is accepted at a
// listener, before it sends again what was not acknowledged: without that it
// doubles up to two minutes. A kernel without the option (before 6.15) is only
// slower.
func retrySoon(_, _ string, listener syscall.RawConn) error {
	return listener.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(maxRetry.Milliseconds()))
	})
}

func closeAll(listeners []*net.TCPListener) {
	for _, l := range listeners {
		l.Close()
	}
}

// Run serves the shared port until ctx is cancelled: on shared, which Listen has opened, or
// none, and by what another daemon, which has the port, hands over at a socket (nil: there
// is none). Then it ends all sessions and returns when everything has stopped.
func (r *Relay) Run(ctx context.Context, shared []*net.TCPListener, handed *local.Socket) error {
	for _, l := range shared {
		r.running.Go(func() { r.acceptTCP(l, 0) })
	}
	if handed != nil {
		r.seldom = logs.Steady(r.cfg.Log, logs.Seldom)
		handed.Refused = func(err error) {
			r.seldom.Warn("connections not taken over: take_over_from names another user", "error", err)
		}
		r.running.Go(func() { r.accept(handed, r.takeOver) })
	}
	<-ctx.Done()
	r.cancel()
	closeAll(shared)
	if handed != nil {
		handed.Close()
	}
	r.mu.Lock()
	r.closed = true
	ids := make([]wire.SessionID, 0, len(r.sessions))
	for id := range r.sessions {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	for _, id := range ids {
		r.Close(id)
	}
	r.running.Wait()
	return nil
}

// Open lets a session's legs come in, at its own port if it has one. An error
// means that the port could not be opened: nothing is left behind.
func (r *Relay) Open(s lease.Session) error {
	n := &session{Session: s, waiting: make(map[leg.ID]*half), pairs: make(map[*pair]struct{})}
	if s.Port != 0 {
		var err error
		if n.listeners, err = r.Listen(s.Port); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		closeAll(n.listeners)
		return fmt.Errorf("open session %v: %w", s.ID, context.Canceled)
	}
	r.sessions[s.ID] = n
	for _, l := range n.listeners {
		n.running.Go(func() { r.acceptTCP(l, s.Port) })
	}
	return nil
}

// holds reports whether a session is open.
func (r *Relay) holds(id wire.SessionID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.sessions[id]
	return ok
}

// Close ends a session: its port is closed and its legs are reset. It returns
// what the session's TCP legs carried, when all of them have stopped.
func (r *Relay) Close(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	s, ok := r.sessions[id]
	if !ok {
		r.mu.Unlock()
		return lease.Traffic{}
	}
	delete(r.sessions, id)
	closeAll(s.listeners)
	for _, h := range s.waiting {
		r.takeLocked(h)
		h.conn.reset()
	}
	for p := range s.pairs {
		p.abort()
	}
	r.mu.Unlock()
	s.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.past = r.past.Plus(s.carried())
	return s.carried()
}

// Total returns what the TCP legs of all sessions have carried, those that have ended
// included; what is ending may be missing for a moment.
func (r *Relay) Total() lease.Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.past
	for _, s := range r.sessions {
		total = total.Plus(s.carried())
	}
	return total
}

// Traffic returns what a session's TCP legs have carried so far.
func (r *Relay) Traffic(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.sessions[id]; ok {
		return s.carried()
	}
	return lease.Traffic{}
}

func (s *session) carried() lease.Traffic {
	return lease.Traffic{s.traffic[0].Load(), s.traffic[1].Load()}
}

// TakenOver returns how many connections another daemon has handed over.
func (r *Relay) TakenOver() uint64 { return r.taken.Load() }

// Pairs returns how many pairs of legs are joined now.
func (r *Relay) Pairs() int { return int(r.pairs.Load()) }

// Waiting is what has no pair yet.
type Waiting struct {
	Legs     int // proven, of sessions that the server ordered
	Standing int // proven, of tickets
	Unproven int // connections that have proven nothing yet
}

// Waiting returns what has no pair yet.
func (r *Relay) Waiting() Waiting {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Waiting{r.waiting.Len(), r.standing.Len(), r.gate.Waiting()}
}

// Sweep ends what has waited or been idle too long. It is called about once a
// second.
func (r *Relay) Sweep() {
	now := r.cfg.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range []*queue{&r.waiting, &r.standing} {
		for e := q.Front(); e != nil && now.Sub(e.Value.(*half).since) >= q.timeout; e = q.Front() {
			r.giveUpLocked(e.Value.(*half), drop.WaitTimeout)
		}
	}
	for _, s := range r.sessions {
		for p := range s.pairs {
			p.settle(now)
			switch moved := p.moved[0].Load() + p.moved[1].Load(); {
			case moved != p.seen:
				p.seen, p.since = moved, now
			case now.Sub(p.since) >= s.Lifetime:
				p.abort()
			}
		}
	}
}

// queueLocked lets a proven leg wait for the other one.
func (r *Relay) queueLocked(h *half) {
	h.queue = &r.waiting
	if h.session.Ticket() {
		h.queue = &r.standing
	}
	if h.queue.Len() >= h.queue.room {
		r.giveUpLocked(h.queue.Front().Value.(*half), drop.Limit)
	}
	h.session.waiting[h.id] = h
	h.queued = h.queue.PushBack(h)
}

// takeLocked ends the wait of a leg.
func (r *Relay) takeLocked(h *half) {
	delete(h.session.waiting, h.id)
	h.queue.Remove(h.queued)
}

func (r *Relay) giveUpLocked(h *half, why drop.Reason) {
	r.takeLocked(h)
	h.conn.reset()
	r.refuse(h.conn.remote, h.id, why)
}
