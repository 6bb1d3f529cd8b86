// Package peers keeps the tunnels of a portal: one to each other portal that
// it has something to carry to or from, opened when it is needed first, shared
// by all that follows, closed when it was idle for long.
//
// A session gives a tunnel its place at a relay. Whichever portal asks for it,
// both learn of it at the same time (Accept) and both begin. When both ask at
// once the server lets one session stand and ends the other, so a tunnel may
// end before it was up and another take its place; whoever waits does not
// notice.
package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// idleTime closes a tunnel that carried nothing.
	idleTime = 10 * time.Minute
	// tryTime is how long new sessions are asked for until a tunnel is up; a
	// last one may take the time of its handshake beyond that. It is more than
	// the 10 s of a handshake that nothing answers, so that whoever waits gets a
	// tunnel by the next way to the relay.
	tryTime = 11 * time.Second
	// firstPause and maxPause bound the pause between sessions that failed.
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
	// failedTime is how long an attempt that has failed answers for those that
	// come after it, so that an application that dials in a tight loop does not
	// become a flood of requests.
	failedTime = 250 * time.Millisecond
	// saidTime is how long the failure of an attempt is what is known of a
	// peer, whatever the server says.
	saidTime = 10 * time.Second
	// maxTunnels bounds the tunnels of a portal, and maxPerPeer those with one
	// peer: one in use, one that takes its place, and what is about to end.
	maxTunnels = 4096
	maxPerPeer = 4
)

// Server is where sessions come from; *control.Client is one.
type Server interface {
	OpenSession(ctx context.Context, peer string, id wire.GrantID, transports wire.Transports) (wire.Session, error)
	Done(id wire.SessionID, reason wire.Reason)
	Server() netip.AddrPort
}

// Config is what a Pool is made from.
type Config struct {
	Credentials *identity.Credentials
	Server      Server
	Finder      *path.Finder
	Handler     tunnel.Handler // of what peers open
	Budget      *tunnel.Budget
	Log         *slog.Logger
}

// Pool holds the tunnels. Its methods are safe for concurrent use.
type Pool struct {
	Config
	ctx   context.Context // of all tunnels
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu       sync.Mutex // guards the following
	closed   bool
	sessions map[wire.SessionID]*member
	peers    map[string]*peer // with a member or an attempt
}

// peer is what there is with one other portal.
type peer struct {
	members []*member // oldest first
	attempt *attempt  // under way, or failed a moment ago
}

// member is one session and its tunnel.
type member struct {
	session wire.Session
	leg     *path.Leg
	tunnel  *tunnel.Tunnel
	cancel  context.CancelFunc // ends the tunnel, its dialling too
	since   time.Time
	gone    chan struct{} // closed when the tunnel has ended; err is set then
	err     error
	ended   bool // by the server; the Pool's lock guards it and the next
	lost    bool // the server ended it because the other portal lost its carriers
}

// attempt is the opening of a session for all who wait for it.
type attempt struct {
	done chan struct{}
	err  error     // valid once done is closed
	over time.Time // when it failed; guarded by the Pool's lock
}

// New returns a Pool.
func New(cfg Config) *Pool {
	ctx, stop := context.WithCancel(context.Background())
	return &Pool{Config: cfg, ctx: ctx, stop: stop, sessions: make(map[wire.SessionID]*member), peers: make(map[string]*peer)}
}

// Run serves until ctx is cancelled, then closes all tunnels and waits until
// they are.
func (p *Pool) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.tasks.Wait()
	return nil
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

// Tunnel returns a tunnel to a portal that is up and proven to be who the
// grant names, by name and key; it opens one where there is none. id is a grant
// that joins the two. The error is an *Unavailable, or that of ctx.
func (p *Pool) Tunnel(ctx context.Context, to grant.Party, id wire.GrantID) (*tunnel.Tunnel, error) {
	for {
		m, a := p.find(to.Name, id)
		switch {
		case m == nil && a == nil:
			return nil, &Unavailable{Reason: wire.ReasonShutdown}
		case m == nil:
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			if a.err != nil {
				return nil, a.err
			}
			continue
		}
		select {
		case <-m.tunnel.Up():
		case <-m.tunnel.Done():
			continue
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		cert := m.tunnel.Peer()
		if cert == nil { // its last carrier was lost in this moment
			select {
			case <-m.tunnel.Done():
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			continue
		}
		if key := identity.HashKey(cert); key != to.Key {
			return nil, &Unavailable{wire.ReasonWrongPeer, fmt.Sprintf("portal %q has the key %v, the grant names %v", to.Name, key, to.Key)}
		}
		return m.tunnel, nil
	}
}

// find returns the newest tunnel to a peer that is up or will be, else the
// attempt to open one, which it begins where there is none. It returns neither
// when the Pool closes.
func (p *Pool) find(name string, id wire.GrantID) (*member, *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.liveLocked(name); m != nil {
		return m, nil
	}
	if p.closed {
		return nil, nil
	}
	pr := p.peerLocked(name)
	if pr.attempt == nil || !pr.attempt.over.IsZero() && time.Since(pr.attempt.over) > failedTime {
		a := &attempt{done: make(chan struct{})}
		pr.attempt = a
		p.tasks.Go(func() {
			a.err = p.open(name, id)
			p.mu.Lock()
			if a.err == nil {
				pr.attempt = nil
				p.tidyLocked(name)
			}
			a.over = time.Now()
			p.mu.Unlock()
			close(a.done)
		})
	}
	return nil, pr.attempt
}

// liveLocked returns the newest tunnel to a peer that is up, else the newest
// that may still come up.
func (p *Pool) liveLocked(name string) *member {
	pr := p.peers[name]
	if pr == nil {
		return nil
	}
	var coming *member
	for _, m := range slices.Backward(pr.members) {
		select {
		case <-m.tunnel.Done():
			continue
		default:
		}
		select {
		case <-m.tunnel.Up():
			return m
		default:
		}
		if coming == nil {
			coming = m
		}
	}
	return coming
}

func (p *Pool) peerLocked(name string) *peer {
	pr := p.peers[name]
	if pr == nil {
		pr = &peer{}
		p.peers[name] = pr
	}
	return pr
}

// tidyLocked forgets a peer with which there is nothing.
func (p *Pool) tidyLocked(name string) {
	if pr := p.peers[name]; pr != nil && pr.attempt == nil && len(pr.members) == 0 {
		delete(p.peers, name)
	}
}

// open asks for sessions with a peer until one has become a tunnel, or until
// it is clear that none will.
func (p *Pool) open(name string, id wire.GrantID) error {
	start, pause := time.Now(), firstPause
	for {
		session, err := p.Server.OpenSession(p.ctx, name, id, path.Transports)
		if err == nil {
			err = p.comesUp(session)
		}
		var refused *control.Refused
		var none *Unavailable
		switch {
		case err == nil:
			return nil
		case errors.As(err, &none):
			return none
		case p.ctx.Err() != nil:
			return &Unavailable{Reason: wire.ReasonShutdown}
		case errors.As(err, &refused) && !passing(refused.Reason):
			return &Unavailable{refused.Reason, refused.Text}
		}
		// The other portal may have been quicker.
		p.mu.Lock()
		live := p.liveLocked(name)
		p.mu.Unlock()
		if live != nil {
			return nil
		}
		if time.Since(start) > tryTime {
			if refused != nil {
				return &Unavailable{refused.Reason, refused.Text}
			}
			return &Unavailable{wire.ReasonCarrierLost, err.Error()}
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// passing reports whether a refusal may be over in a moment.
func passing(r wire.Reason) bool {
	return r == wire.ReasonReplaced || r == wire.ReasonRelayRefused || r == wire.ReasonTimeout
}

// comesUp waits until the tunnel of a session is up, or has ended.
func (p *Pool) comesUp(session wire.Session) error {
	p.mu.Lock()
	m := p.sessions[session.ID]
	p.mu.Unlock()
	if m == nil {
		if _, err := p.Finder.Leg(session, p.Server.Server().Addr()); err != nil {
			return &Unavailable{wire.ReasonForbidden, err.Error()}
		}
		return errors.New("the session was over before it began")
	}
	select {
	case <-m.tunnel.Up():
		return nil
	case <-m.tunnel.Done():
	}
	p.mu.Lock()
	ended := m.ended
	p.mu.Unlock()
	if ended {
		return errors.New("the server has ended the session")
	}
	<-m.gone
	if m.err == nil {
		return errors.New("the tunnel was closed")
	}
	return m.err
}

// Accept begins the tunnel of a session that the server has announced. It
// implements control.Sessions.
func (p *Pool) Accept(session wire.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.sessions[session.ID] != nil {
		return
	}
	log := p.Log.With("peer", session.Peer, "session", session.ID.String())
	if session.Peer == p.Credentials.ID.Name {
		log.Warn("session refused", "error", "it is with this portal itself")
		p.Server.Done(session.ID, wire.ReasonProtocol)
		return
	}
	pr := p.peerLocked(session.Peer)
	defer p.tidyLocked(session.Peer)
	if len(p.sessions) >= maxTunnels || len(pr.members) >= maxPerPeer {
		log.Warn("session refused", "error", fmt.Sprintf("there are %d tunnels, %d with this peer", len(p.sessions), len(pr.members)))
		p.Server.Done(session.ID, wire.ReasonBusy)
		return
	}
	leg, err := p.Finder.Leg(session, p.Server.Server().Addr())
	if err != nil {
		log.Warn("session refused", "error", err)
		p.Server.Done(session.ID, wire.ReasonForbidden)
		return
	}
	client := session.Leg == 0
	ctx, cancel := context.WithCancel(p.ctx)
	m := &member{session: session, leg: leg, cancel: cancel, since: time.Now(), gone: make(chan struct{})}
	m.tunnel = tunnel.New(tunnel.Config{
		Client: client, Session: session.ID, Ways: leg.Ways, TLS: p.tls(client, session.Peer),
		Handler: p.Handler, Budget: p.Budget, Idle: idleTime, Log: log,
	})
	p.sessions[session.ID] = m
	pr.members = append(pr.members, m)
	p.tasks.Go(func() { p.run(ctx, m, log) })
}

func (p *Pool) tls(client bool, peer string) *tls.Config {
	check := identity.Expect(identity.Portal, peer)
	if client {
		return p.Credentials.ClientTLS(identity.ProtocolTunnel, check)
	}
	return p.Credentials.ServerTLS(identity.ProtocolTunnel, check)
}

// run serves a tunnel until it ends.
func (p *Pool) run(ctx context.Context, m *member, log *slog.Logger) {
	defer m.cancel()
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-m.tunnel.Up():
			mode, addr := m.leg.Mode()
			log.Info("tunnel up", "relay", m.leg.Relay(), "path", mode, "address", addr.String())
		case <-m.tunnel.Done():
		}
	})
	m.err = m.tunnel.Run(ctx)
	watching.Wait()
	p.mu.Lock()
	delete(p.sessions, m.session.ID)
	pr := p.peers[m.session.Peer]
	pr.members = slices.DeleteFunc(pr.members, func(o *member) bool { return o == m })
	p.tidyLocked(m.session.Peer)
	ended, lost := m.ended, m.lost
	p.mu.Unlock()
	reason := doneReason(m.err, p.ctx)
	if !ended {
		p.Server.Done(m.session.ID, reason)
	}
	select {
	case <-m.tunnel.Up():
	default:
		if (!ended || lost) && p.ctx.Err() == nil { // the other portal may have noticed first
			m.leg.Failed()
		}
	}
	var end *tunnel.EndError
	if m.err != nil && !ended && !(errors.As(m.err, &end) && end.Peer) {
		log.Warn("tunnel lost", "relay", m.leg.Relay(), "error", m.err)
	} else {
		log.Info("tunnel closed", "relay", m.leg.Relay(), "reason", reason.String())
	}
	close(m.gone)
}

// doneReason says why a tunnel ended, by what its Run returned.
func doneReason(err error, ctx context.Context) wire.Reason {
	var end *tunnel.EndError
	switch {
	case ctx.Err() != nil:
		return wire.ReasonShutdown
	case err == nil:
		return wire.ReasonIdle
	case errors.As(err, &end):
		return end.Reason
	}
	return wire.ReasonCarrierLost
}

// Ended closes the tunnel of a session that the server has ended. It
// implements control.Sessions.
func (p *Pool) Ended(id wire.SessionID, reason wire.Reason) {
	p.mu.Lock()
	m := p.sessions[id]
	if m != nil {
		m.ended, m.lost = true, reason == wire.ReasonCarrierLost
	}
	p.mu.Unlock()
	if m != nil {
		m.tunnel.Close(reason, "the server ended the session")
		m.cancel()
	}
}

// Cut resets what runs under any of the grants, in all tunnels, and returns how
// much that was.
func (p *Pool) Cut(ids []wire.GrantID, reason wire.Reason) (n int) {
	p.mu.Lock()
	var tunnels []*tunnel.Tunnel
	for _, m := range p.sessions {
		tunnels = append(tunnels, m.tunnel)
	}
	p.mu.Unlock()
	for _, t := range tunnels {
		for _, id := range ids {
			n += t.CutGrant(id, reason)
		}
	}
	return n
}
