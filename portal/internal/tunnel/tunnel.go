package tunnel

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

const (
	// maxStreams bounds streams and flows of a tunnel, both sides together,
	// with those that wait for the answer to a RESET.
	maxStreams = 4096
	// maxPending bounds what the Handler may be busy with for one tunnel.
	maxPending = 512
	// maxStray is how many frames for streams that are not open the peer may
	// send before the tunnel is closed.
	maxStray = 100
	// maxGrants bounds the grants that a tunnel remembers for its peer.
	maxGrants = 1024
	// defaultLinger is how long a tunnel lives without hearing from its peer.
	defaultLinger = 2 * time.Minute
)

// Config is what a tunnel is made from. It must not change afterwards. The
// functions are called without a lock of the tunnel's; those that are nil are
// not called.
type Config struct {
	// Client is true on the portal that was the TLS client of the tunnel's
	// first carrier: it opens odd numbers, for the tunnel's life.
	Client  bool
	Handler Handler
	// Budget is shared with the portal's other tunnels; each may use half.
	Budget *Budget
	// Idle is how long the tunnel stays without a stream or flow; 0 is for
	// ever. Either side may ask for the end, neither is cut off by it.
	Idle time.Duration
	// Linger is how long the tunnel lives on without hearing from its peer,
	// once an answer is overdue on every carrier or all are lost; 0 is two
	// minutes. Then its streams are reset.
	Linger time.Duration
	// Account returns who adds up what the streams and flows of a grant carry; mine are
	// those that this side opens. It may return nil.
	Account func(id wire.GrantID, mine bool) Account
	// Log names the peer in its attributes.
	Log *slog.Logger

	// Next returns the number for a further carrier of that kind in a session
	// of which this portal is the TLS client; false if there is none to be had.
	Next func(session wire.SessionID, kind wire.CarrierKind) (connection uint16, ok bool)
	// More joins the carrier that CARRIER has announced in a session, HELLO
	// exchanged and checked. It is called on both sides. An error that wraps
	// wire.ErrMalformed says that the peer may not ask for this carrier.
	More func(ctx context.Context, session wire.SessionID, connection uint16, kind wire.CarrierKind) (carrier.Conn, Way, error)
	// Paths says which carriers streams and flows may take. SetPaths changes it.
	Paths grant.Direct
	// Machine says in each CANDIDATES which machine this portal runs on (Identity.Machine).
	Machine [16]byte
	// Candidates takes where the peer may be reached without a relay, each time that it
	// says so anew; they are hints, from whom nothing is believed. It must not block.
	Candidates func(m wire.Candidates)
	// Came tells that a carrier was attached. It must not block.
	Came func()
	// Trouble tells that the tunnel needs other carriers, again for each that is
	// lost or falls silent meanwhile, or no longer does. It must not block.
	Trouble func(Trouble)
	// Left tells that a carrier has ended, after everything was taken off it:
	// once for each that Attach has taken or More returned. It must not block.
	Left func(session wire.SessionID, err error)
}

// Trouble is what the owner is told about the carriers.
type Trouble int

// The states of a tunnel's carriers.
const (
	Well   Trouble = iota // all carriers answer
	Silent                // one does not answer; others may
	Lost                  // there is none: the tunnel lingers
)

// Way is where a carrier runs.
type Way interface {
	// String names the way as status does.
	String() string
	// Lost tells that the carrier broke soon after it had come up, though another
	// of its session came up after it. If the way has a method Stuck(), that is
	// called when the carrier died like one whose full segments get lost.
	Lost()
	// Direct reports whether it goes by no relay.
	Direct() bool
}

// Tunnel is one tunnel. Its methods are safe for concurrent use.
type Tunnel struct {
	cfg    Config
	budget *Budget
	up     chan struct{}
	done   chan struct{}
	kick   chan struct{}  // wakes the loop of Run
	tasks  sync.WaitGroup // carriers, Handler calls, goroutines of pipes
	ctx    context.Context
	cancel context.CancelFunc
	acks   ackTimer
	flowAt atomic.Pointer[link] // the carrier that flows take; nil: none
	linger atomic.Int64         // Config.Linger, as it is now
	slow   atomic.Bool          // direct carriers come after those by a relay

	opened, refused, drops, stray atomic.Uint64
	busy                          sync.Once // the log was told

	mu        sync.Mutex
	links     []*link           // carriers, oldest first
	flowNext  *link             // the carrier that flows take when it has settled; nil: none
	nextSince time.Time         // since when that is to be
	carried   chan struct{}     // closed while there is a carrier that may be taken
	paths     grant.Direct      // Config.Paths, as it is now
	barredAt  time.Time         // since when there is none, though there are others; zero: there is
	choice    choice            // between direct carriers and those by a relay
	lookedAt  time.Time         // when both were looked at last
	weighed   uint64            // what was carried then
	own       wire.Candidates   // that were offered to the peer
	theirs    uint32            // number of the peer's newest
	lostAt    time.Time         // when the peer was last heard, while there is none
	lostWhy   error             // of the last carrier
	heard     bool              // anything came from the peer, ever
	heardAt   time.Time         // when anything was last heard on carriers that are gone
	peer      *x509.Certificate // of the newest carrier
	leaving   []wire.SessionID  // sessions that were retired lately
	further   further           // carriers to come
	suspects  []suspect         // ways that may be at fault
	changed   bool              // ends may have to move
	inDoubt   bool              // carriers were, at the last look
	told      Trouble           // what the owner was told last
	worse     bool              // a carrier was lost or fell silent since
	past      Stats             // of carriers that died
	ends      map[uint32]end
	streams   int // of ends
	nextID    uint32
	seen      idWindow
	order     order                   // of what the peer opens
	holds     map[wire.GrantID]bool   // grants that the peer holds whole
	grants    map[wire.GrantID][]byte // grants that the peer sent whole
	pending   int                     // OPENs with the Handler
	waiting   int                     // what waits for a carrier to be opened
	drained   chan struct{}           // closed when no stream is left; nil: not asked for
	over      bool                    // nothing is opened any more, done is closed
	err       error                   // why
	asked     bool                    // for the end, being idle: open nothing until the peer does
	idleSince time.Time
	idleTimer *time.Timer
}

// end is this portal's end of a stream, a flow or a probe.
type end interface {
	// frame takes a frame of this end from a carrier.
	frame(l *link, h wire.FrameHeader, body []byte) error
	// cut ends it here. The peer is told if tell is true and it can be.
	cut(why *EndError, tell bool)
	// lost takes it off a carrier that has died.
	lost(l *link)
	// place moves it to the carrier that is best now.
	place()
	grantID() wire.GrantID
	isFlow() bool
}

// New returns a tunnel without a carrier; Run must follow.
func New(cfg Config) *Tunnel {
	if cfg.Linger == 0 {
		cfg.Linger = defaultLinger
	}
	t := &Tunnel{
		cfg:       cfg,
		up:        make(chan struct{}),
		done:      make(chan struct{}),
		kick:      make(chan struct{}, 1),
		carried:   make(chan struct{}),
		paths:     cfg.Paths,
		further:   make(further),
		ends:      make(map[uint32]end),
		holds:     make(map[wire.GrantID]bool),
		grants:    make(map[wire.GrantID][]byte),
		nextID:    2,
		idleSince: time.Now(),
	}
	t.linger.Store(int64(cfg.Linger))
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if cfg.Budget != nil {
		t.budget = cfg.Budget.part(cfg.Budget.limit / 2)
	}
	t.seen.odd = !cfg.Client
	if cfg.Client {
		t.nextID = 1
	}
	return t
}

// Run serves the tunnel until ctx ends, either side closes it, or it has
// lingered in vain. It returns nil when ctx ended or the tunnel closed for
// being idle, else an *EndError. When it returns, everything the tunnel started
// has stopped. It runs once.
func (t *Tunnel) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { t.finish(nil, &EndError{Reason: wire.ReasonShutdown}) })
	defer stop()
	t.keep()
	t.cancel()
	t.acks.stop()
	t.tasks.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idleTimer != nil {
		t.idleTimer.Stop()
	}
	return t.err
}

// Up is closed when the first carrier was attached.
func (t *Tunnel) Up() <-chan struct{} { return t.up }

// Done is closed when the tunnel opens nothing more; Run returns soon after.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Peer returns the peer's certificate as TLS proved it on the newest carrier, nil
// before Up.
func (t *Tunnel) Peer() *x509.Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peer
}

// Close ends the tunnel: it tells the peer the reason and resets what is open.
func (t *Tunnel) Close(reason wire.Reason, text string) {
	why := &EndError{Reason: reason, Text: text}
	t.finish(why, why)
}

// finish ends the tunnel, the first time it is called. err is for Run's
// caller. why is told to the peer, unless the peer said it, and to whatever is
// open.
func (t *Tunnel) finish(err error, why *EndError) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.over = true
	t.err = err
	links := t.links
	ends := t.endsLocked()
	t.mu.Unlock()
	defer close(t.done)

	var last []byte
	if !why.Peer {
		last = wire.AppendFrame(nil, 0, wire.TunnelClose{Reason: why.Reason, Text: why.Text})
	}
	for _, l := range links {
		l.conn.Close(last)
	}
	for _, e := range ends {
		e.cut(why, false)
	}
}

func (t *Tunnel) endsLocked() []end {
	ends := make([]end, 0, len(t.ends))
	for _, e := range t.ends {
		ends = append(ends, e)
	}
	return ends
}

// CutGrant resets every stream and flow of a grant, opened by either side, and
// forgets the grant. It returns how many there were. The owner takes the grant
// from its Handler first, so that nothing is opened under it afterwards.
func (t *Tunnel) CutGrant(id wire.GrantID, reason wire.Reason) int {
	var hit []end
	t.mu.Lock()
	delete(t.holds, id)
	delete(t.grants, id)
	for _, e := range t.ends {
		if e.grantID() == id {
			hit = append(hit, e)
		}
	}
	t.mu.Unlock()
	for _, e := range hit {
		e.cut(&EndError{Reason: reason}, true)
	}
	return len(hit)
}

// Drain has the peer's further OPENs refused (ReasonShutdown), opens nothing
// more here, and waits until no stream is left or ctx ends; then it returns the
// cause. It is called once, before Close.
func (t *Tunnel) Drain(ctx context.Context) error {
	t.mu.Lock()
	t.drained = make(chan struct{})
	if t.streams == 0 {
		close(t.drained)
	}
	t.mu.Unlock()
	select {
	case <-t.drained:
	case <-t.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Ping measures one round trip to the peer, on the best carrier there is.
func (t *Tunnel) Ping(ctx context.Context) (time.Duration, error) {
	for {
		if l := t.best(wire.CarrierTCP); l != nil {
			return l.conn.Ping(ctx)
		}
		if err := t.wait(ctx); err != nil {
			return 0, err
		}
	}
}

// PingEach measures a round trip on every carrier there is, all at once. It returns
// when each was answered or ctx has ended; RTT is 0 where nothing was answered.
func (t *Tunnel) PingEach(ctx context.Context) []CarrierStats {
	t.mu.Lock()
	links := slices.Clone(t.links)
	list := make([]CarrierStats, len(links))
	for i, l := range links {
		list[i] = t.statsLocked(l, l.conn.Stats())
	}
	t.mu.Unlock()
	var asking sync.WaitGroup
	for i, l := range links {
		asking.Go(func() { list[i].RTT, _ = l.conn.Ping(ctx) })
	}
	asking.Wait()
	return list
}

// Check asks on every carrier whether the peer answers, and does not wait.
func (t *Tunnel) Check() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.links {
		l.conn.Measure(now)
	}
}
