// Package tunnel is the association of two portals: it owns one or more
// carriers and every stream and flow between the two.
//
//	application socket -- pipe -- stream -- carrier -- peer
//	UDP socket ---------- Flow ------------ carrier -- peer
//
// A pipe copies between an application's socket and its stream: one goroutine
// reads the socket; what comes from the peer is written to the socket by the
// carrier's reader as far as it fits, and by a second goroutine of the pipe
// only when it does not. So a byte that crosses an idle tunnel wakes one
// goroutine at each portal.
//
// A Tunnel decides nothing: whom it is with, TLS says (Config.TLS); what the
// peer may open, the Handler; where carriers run, Ways.
package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/wire"
)

const (
	// joinTime bounds everything from the dial of a carrier to its HELLO.
	joinTime = 10 * time.Second
	// maxStreams bounds streams and flows of a tunnel, both sides together,
	// with those that wait for the answer to a RESET.
	maxStreams = 4096
	// maxPending bounds what the Handler may be busy with for one tunnel.
	maxPending = 256
	// maxStray is how many frames for streams that are not open the peer may
	// send before the tunnel is closed.
	maxStray = 100
	// maxGrants bounds the grants that a tunnel remembers for its peer.
	maxGrants = 1024
)

// Config is what a tunnel is made from. It must not change afterwards.
type Config struct {
	// Client is true on the portal that opened the session: it is the TLS
	// client of every carrier and decides how many there are.
	Client  bool
	Session wire.SessionID
	// Ways returns the ways to the peer for the carrier of that connection
	// number, at least one, in the order in which to try them, and how long
	// apart; see race. Connection 0 is dialled by Run; further ones while the
	// tunnel lives. A connection that is a *net.TCPConn is read and written
	// with less effort than any other.
	Ways func(connection uint16) (ways []path.Way, apart time.Duration)
	// TLS verifies the peer (VerifyConnection) and holds this portal's
	// certificate. The tunnel uses a clone.
	TLS     *tls.Config
	Handler Handler
	// Budget is shared with the portal's other tunnels; each may use half.
	Budget *Budget
	// Idle is how long the tunnel stays without a stream or flow; 0 is for
	// ever. Either side may ask for the end, neither is cut off by it.
	Idle time.Duration
	// Log names the peer and the session in its attributes.
	Log *slog.Logger
}

// Tunnel is one tunnel. Its methods are safe for concurrent use.
type Tunnel struct {
	cfg    Config
	budget *Budget
	up     chan struct{}
	done   chan struct{}
	tasks  sync.WaitGroup // carriers, Handler calls, goroutines of pipes
	ctx    context.Context
	acks   ackTimer

	opened, refused, drops, stray atomic.Uint64
	busy                          sync.Once // the log was told

	mu        sync.Mutex
	links     []*link // carriers that are joined
	joins     int     // carriers that are being joined
	nextConn  uint16  // number of the next carrier
	joinAfter time.Time
	past      Stats // of carriers that died
	ends      map[uint32]end
	nextID    uint32
	seen      idWindow
	order     order                   // of what the peer opens
	told      map[wire.GrantID]bool   // grants that the peer holds whole
	heard     map[wire.GrantID][]byte // grants that the peer sent whole
	pending   int                     // OPENs with the Handler
	started   bool
	over      bool  // nothing is opened any more, done is closed
	err       error // why
	asked     bool  // for the end, being idle: open nothing until the peer does
	idleSince time.Time
	idleTimer *time.Timer
}

// end is this portal's end of a stream, a flow or a probe.
type end interface {
	// frame takes a frame of this end from the reader of its carrier.
	frame(l *link, h wire.FrameHeader, body []byte) error
	// cut ends it here. The peer is told if tell is true and it can be.
	cut(why *EndError, tell bool)
	grantID() wire.GrantID
	carrier() *link
	isFlow() bool
}

// New returns a tunnel; Run makes it live.
func New(cfg Config) *Tunnel {
	t := &Tunnel{
		cfg:       cfg,
		up:        make(chan struct{}),
		done:      make(chan struct{}),
		ends:      make(map[uint32]end),
		told:      make(map[wire.GrantID]bool),
		heard:     make(map[wire.GrantID][]byte),
		nextID:    2,
		nextConn:  1,
		idleSince: time.Now(),
	}
	if cfg.Budget != nil {
		t.budget = cfg.Budget.part(cfg.Budget.limit / 2)
	}
	t.seen.odd = !cfg.Client
	if cfg.Client {
		t.nextID = 1
	}
	return t
}

// Run dials carrier 0 and serves the tunnel until ctx ends, either side closes
// it, or the last carrier is lost. It returns nil when ctx ended or the tunnel
// closed for being idle, else an *EndError or the error of the dial. When it
// returns, everything the tunnel started has stopped. It runs once.
func (t *Tunnel) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.ctx = ctx
	stop := context.AfterFunc(ctx, func() { t.finish(nil, &EndError{Reason: wire.ReasonShutdown}) })
	defer stop()
	if err := t.join(ctx, 0); err != nil {
		t.finish(err, &EndError{Reason: wire.ReasonCarrierLost})
	}
	<-t.done
	cancel()
	t.acks.stop()
	t.tasks.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idleTimer != nil {
		t.idleTimer.Stop()
	}
	return t.err
}

// Up is closed when the first carrier is joined and proven.
func (t *Tunnel) Up() <-chan struct{} { return t.up }

// Done is closed when the tunnel opens nothing more; Run returns soon after.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Peer returns the peer's certificate as TLS proved it, nil before Up.
func (t *Tunnel) Peer() *x509.Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.links) == 0 {
		return nil
	}
	return t.links[0].conn.Peer()
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
	ends := make([]end, 0, len(t.ends))
	for _, e := range t.ends {
		ends = append(ends, e)
	}
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

// CutGrant resets every stream and flow of a grant, opened by either side, and
// forgets the grant. It returns how many there were. The owner takes the grant
// from its Handler first, so that nothing is opened under it afterwards.
func (t *Tunnel) CutGrant(id wire.GrantID, reason wire.Reason) int {
	var hit []end
	t.mu.Lock()
	delete(t.told, id)
	delete(t.heard, id)
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

// Ping measures one round trip to the peer.
func (t *Tunnel) Ping(ctx context.Context) (time.Duration, error) {
	if err := t.wait(ctx); err != nil {
		return 0, err
	}
	t.mu.Lock()
	l := t.pickLocked()
	t.mu.Unlock()
	if l == nil {
		return 0, ErrClosed
	}
	return l.conn.Ping(ctx, l.dead)
}

// wait waits until the tunnel is up.
func (t *Tunnel) wait(ctx context.Context) error {
	select {
	case <-t.up:
	default:
		select {
		case <-t.up:
		case <-t.done:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

var errNoCarrier = errors.New("the last carrier was lost")
