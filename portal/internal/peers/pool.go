// Package peers keeps the tunnels of a portal: one to each other portal that
// it has something to carry to or from, opened when it is needed first, shared
// by all that follows, closed when it was idle for long. It finds tunnels that
// have lost their carriers a way back.
//
//	Pool ── peer ──┬─ member: a tunnel                     (member.go)
//	               │    └─ its session on direct ways      (direct.go)
//	               ├─ session: a place to meet, at a relay (session.go),
//	               │    or on the local network            (lan.go)
//	               └─ search: for a tunnel, or a way back  (search.go)
//
// A tunnel outlives the sessions that its carriers are made in. A session
// begins when the server announces it (Accept), whichever portal has asked for
// it, or, where that does not come, with a ticket (tickets.go) or on the local
// network. Its carriers may turn out to belong to a tunnel there is; its peer says
// so in HELLO (package meeting). It is given back as soon as no carrier of it lives and another
// session's does.
//
// The Pool's lock is taken inside a tunnel's, never the other way round: no
// method of a tunnel is called with the lock held.
package peers

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// idleTime closes a tunnel that carried nothing.
	idleTime = 10 * time.Minute
	// failedTime is how long an attempt that has failed answers for those that
	// come after it, so that an application that dials in a tight loop does not
	// become a flood of requests.
	failedTime = 250 * time.Millisecond
	// saidTime is how long the failure of an attempt is what is known of a
	// peer, whatever the server says.
	saidTime = 10 * time.Second
	// maxSessions bounds the sessions of a portal, and maxPerPeer those that the
	// server has announced with one peer, and the tunnels with it: one in use,
	// one that takes its place, and what is about to end.
	maxSessions = 4096
	maxPerPeer  = 4
)

// Server is where sessions come from; *control.Client is one.
type Server interface {
	OpenSession(ctx context.Context, peer string, id wire.GrantID, transports wire.Transports, lost string) (wire.Session, error)
	Done(id wire.SessionID, reason wire.Reason)
	// Server returns the address at which the server was reached last.
	Server() netip.AddrPort
	// Connected reports whether there is a connection, and since when it is
	// so.
	Connected() (connected bool, since time.Time)
}

// Tickets are the standing sessions for the time without a server. Both
// methods return what holds now.
type Tickets interface {
	For(peer string) []wire.Ticket
	Peers() []string
}

// Config is what a Pool is made from.
type Config struct {
	Credentials *identity.Credentials
	Server      Server
	Finder      Finder
	Tickets     Tickets
	// Joined returns a grant that joins this portal with another now, in
	// either direction.
	Joined func(peer string) (wire.GrantID, bool)
	// Proves reports whether the pair of a grant holds now with a key of another
	// portal.
	Proves func(id wire.GrantID, peer string, key identity.KeyHash) bool
	// Names reports whether any grant that holds now names a key of another
	// portal, and whether any joins the two at all.
	Names func(peer string, key identity.KeyHash) (named, joined bool)
	// Recheck says why what a peer has presented is trusted no more, whatever the
	// time is.
	Recheck func(chain []*x509.Certificate) error
	// Paths says by which paths what joins this portal with another may go now.
	Paths func(peer string) grant.Direct
	// Directs finds direct ways; nil: none are looked for.
	Directs Directs
	// LAN finds portals on the local network; nil: none are looked for.
	LAN LAN
	// Secret returns a key that this portal has in common with a peer that a grant joins
	// with it now, and Partners the names of all such peers.
	Secret   func(peer string) ([32]byte, bool)
	Partners func() []string
	// Machine names the machine that this portal runs on (network.Machine); "": not known.
	Machine string
	// Account is tunnel.Config.Account; Stalled is told for how long nothing of what was
	// open got through to a peer, when something does again or nothing will. Both may be nil.
	Account func(id wire.GrantID, mine bool) tunnel.Account
	Stalled func(peer string, d time.Duration)
	Handler tunnel.Handler // of what peers open
	Budget  *tunnel.Budget
	Linger  time.Duration // how long a tunnel without a carrier waits for one
	Log     *slog.Logger
}

// Pool holds the tunnels. Its methods are safe for concurrent use.
type Pool struct {
	Config
	tunnels task // of every member
	tasks   task // of everything else
	tries   tries
	look    chan struct{}
	doubts  chan struct{} // capacity 1: what carriers were proven with may hold no more
	back    chan struct{} // capacity 1: a relay is back
	linger  atomic.Int64  // Config.Linger, as it is now

	mu       sync.Mutex // guards the following
	closed   bool
	draining bool // no tunnel begins any more
	sessions map[wire.SessionID]*session
	peers    map[string]*peer
}

// task is a context and those who work under it.
type task struct {
	sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
}

func (t *task) init() { t.ctx, t.stop = context.WithCancel(context.Background()) }

// peer is what there is with one other portal. The Pool's lock guards it.
type peer struct {
	name     string
	tunnels  []*member     // oldest first, with those that end
	sessions []*session    // oldest first
	attempt  *attempt      // under way, or failed a moment ago
	search   *search       // under way
	pace     pace          // of its searches
	spare    pace          // of those for a relay in reserve
	lost     string        // relay at which no carrier came up
	took     time.Duration // how long the last first carrier has taken
	meet     bool          // tickets are wanted, whatever the server does
	ended    wire.Reason   // of the last tunnel
	proofs   proofs        // of its carriers
}

// attempt is the opening of a tunnel, or the finding of its way back, for all
// who wait for it.
type attempt struct {
	grant wire.GrantID
	began time.Time
	done  chan struct{}
	err   error     // valid once done is closed
	over  time.Time // when it failed; the Pool's lock guards it
}

// New returns a Pool.
func New(cfg Config) *Pool {
	p := &Pool{
		Config: cfg, look: make(chan struct{}, 1), doubts: make(chan struct{}, 1), back: make(chan struct{}, 1),
		sessions: make(map[wire.SessionID]*session), peers: make(map[string]*peer),
	}
	p.linger.Store(int64(cfg.Linger))
	p.tunnels.init()
	p.tasks.init()
	p.tries.init()
	p.Finder.Listen(p.heard)
	return p
}

// Run serves until ctx is cancelled, then closes all tunnels, gives their
// sessions back and waits until that is done.
func (p *Pool) Run(ctx context.Context) error {
	p.tasks.Go(p.keepTickets)
	p.tasks.Go(p.keepProofs)
	p.tasks.Go(p.keepSearches)
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.tunnels.stop()
	p.tunnels.Wait()
	p.tasks.stop()
	p.tasks.Wait()
	return nil
}

// Drain waits until no stream is open in any tunnel, or ctx ends. Nothing is
// opened any more, by either side; tunnels that have lost their carriers still
// find a way back.
func (p *Pool) Drain(ctx context.Context) {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	var draining sync.WaitGroup
	for _, m := range p.members() {
		draining.Go(func() { m.tunnel.Drain(ctx) })
	}
	draining.Wait()
}

// Unavailable says why there is no tunnel.
type Unavailable struct {
	Reason wire.Reason
	Detail string
}

func (u *Unavailable) Error() string {
	if u.Detail == "" {
		return "no tunnel: " + u.Reason.String()
	}
	return fmt.Sprintf("no tunnel: %s: %s", u.Reason, u.Detail)
}

// Tunnel returns a tunnel to a portal that has a carrier and is proven to be whom
// the pair of the grant id names, by name and key. It opens one where there is
// none, and waits where one has lost its carriers. The error is an *Unavailable,
// or that of ctx.
func (p *Pool) Tunnel(ctx context.Context, to string, id wire.GrantID) (*tunnel.Tunnel, error) {
	for {
		m, a := p.find(to, id)
		switch {
		case m == nil && a == nil:
			return nil, &Unavailable{Reason: wire.ReasonShutdown}
		case m == nil:
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, p.late(to, context.Cause(ctx))
			}
			if a.err != nil {
				return nil, a.err
			}
			continue
		}
		cert := m.tunnel.Peer()
		if cert == nil { // it ends in this moment
			select {
			case <-m.tunnel.Done():
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			continue
		}
		if key := identity.HashKey(cert); !p.Proves(id, to, key) {
			return nil, &Unavailable{wire.ReasonWrongPeer, fmt.Sprintf("portal %q has the key %v, which no grant for this names now", to, key)}
		}
		return m.tunnel, nil
	}
}

// late says beside the end of a wait what was waited for.
func (p *Pool) late(name string, err error) error {
	if s, _, ok := p.Live(name); ok && !s.Waiting.IsZero() {
		return fmt.Errorf("%w; the tunnel there is has been waiting for a way back for %v", err, time.Since(s.Waiting).Truncate(time.Second))
	}
	return err
}

// find returns the newest tunnel to a peer that has a carrier, else the attempt
// to get one, which it begins where there is none. It returns neither when the
// Pool closes.
func (p *Pool) find(name string, id wire.GrantID) (*member, *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.draining {
		return nil, nil
	}
	pr := p.peerLocked(name)
	if m := pr.liveLocked(); m != nil {
		return m, nil
	}
	if a := pr.attempt; a == nil || !a.over.IsZero() && time.Since(a.over) > failedTime {
		pr.attempt = &attempt{grant: id, began: time.Now(), done: make(chan struct{})}
		p.searchLocked(pr)
	}
	return nil, pr.attempt
}

// liveLocked returns the newest tunnel that has a carrier.
func (pr *peer) liveLocked() *member {
	for i := len(pr.tunnels) - 1; i >= 0; i-- {
		if m := pr.tunnels[i]; m.up && !m.over() && pr.carriersLocked(m) > 0 {
			return m
		}
	}
	return nil
}

func (p *Pool) peerLocked(name string) *peer {
	pr := p.peers[name]
	if pr == nil {
		pr = &peer{name: name, ended: wire.ReasonCarrierLost}
		p.peers[name] = pr
	}
	return pr
}

// tidyLocked forgets a peer with which there is nothing.
func (p *Pool) tidyLocked(pr *peer) {
	if pr.attempt == nil && pr.search == nil && len(pr.tunnels) == 0 && len(pr.sessions) == 0 && p.peers[pr.name] == pr {
		delete(p.peers, pr.name)
	}
}

// members returns all tunnels.
func (p *Pool) members() (list []*member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.peers {
		list = append(list, pr.tunnels...)
	}
	return list
}

// Cut resets what runs under any of the grants, in all tunnels, and returns how
// much that was.
func (p *Pool) Cut(ids []wire.GrantID, reason wire.Reason) (n int) {
	for _, m := range p.members() {
		for _, id := range ids {
			n += m.tunnel.CutGrant(id, reason)
		}
	}
	return n
}

// SetLinger changes Config.Linger, for tunnels that there are too.
func (p *Pool) SetLinger(d time.Duration) {
	p.linger.Store(int64(d))
	for _, m := range p.members() {
		m.tunnel.SetLinger(d)
	}
}

// Changed tells that this portal's network has changed, or that the machine has
// slept: every carrier is asked whether it lives, and what searches for a way
// tries at once.
func (p *Pool) Changed() {
	p.tries.again()
	p.mu.Lock()
	for _, pr := range p.peers {
		pr.pace = pace{}
		if pr.search != nil {
			pr.search.wake()
		}
	}
	for _, s := range p.sessions {
		s.wake()
	}
	p.mu.Unlock()
	check(p.members())
	p.lookAgain()
}
