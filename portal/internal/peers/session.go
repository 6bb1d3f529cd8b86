package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// againTime is how long a portal waits at a relay for the other, which has
	// lost its carriers too, and may notice it later.
	againTime = 5 * time.Second
	// firstPause and maxPause bound the pause between attempts that failed.
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
)

// session is one session: a place where carriers of this portal and another
// are made.
//
//	joining ---- first carrier ----> met <---- carriers ----> empty
//	   |                                                        |
//	   +-- none came up, nothing else is to be made here ---> over: given back
//
// Its run goroutine makes the first carrier, and stays until the session is
// over.
type session struct {
	info    wire.Session
	pool    *Pool
	peer    *peer
	leg     Leg
	meeting *meeting.Meeting
	ticket  bool // made with a ticket: the server knows nothing of it
	lan     bool // on the local network, as with a ticket
	direct  bool // on the direct ways of one tunnel: no relay knows of it, nor the server
	since   time.Time
	log     *slog.Logger
	ctx     context.Context // of what makes carriers
	stop    context.CancelFunc
	gone    chan struct{} // closed when nothing is left of it
	work    sync.WaitGroup
	joined  chan struct{} // closed when it is clear whether a first carrier came up
	err     error         // why not; valid then

	// The Pool's lock guards the following.
	carriers map[*member]int           // that live, by tunnel
	attempts int                       // first carriers, and such without a number, that are being made
	further  int                       // further carriers that are being made
	ended    bool                      // by the server, or no more needed: no carrier is made any more
	refused  bool                      // nothing listens where the relay should be
	places   map[string]netip.AddrPort // where at the relay, by the name of the way
	restart  context.CancelFunc
}

// Accept takes a session that the server has announced. It implements
// control.Sessions.
func (p *Pool) Accept(info wire.Session) {
	p.mu.Lock()
	known := p.sessions[info.ID] != nil
	p.mu.Unlock()
	if known { // it was told again, to answer a request
		return
	}
	log := p.Log.With("peer", info.Peer, "session", info.ID.String())
	leg, err := p.Finder.Leg(info, p.Server.Server().Addr())
	if err != nil {
		log.Warn("session refused", "error", err)
		p.Server.Done(info.ID, wire.ReasonForbidden)
		return
	}
	reason, err := p.accept(info, leg, log)
	if err != nil {
		leg.Close()
		log.Warn("session refused", "error", err)
		p.Server.Done(info.ID, reason)
	}
}

func (p *Pool) accept(info wire.Session, leg Leg, log *slog.Logger) (wire.Reason, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if info.Peer == p.Credentials.ID.Name {
		return wire.ReasonProtocol, errors.New("it is with this portal itself")
	}
	if p.closed {
		return wire.ReasonShutdown, errors.New("this portal is stopping")
	}
	pr := p.peerLocked(info.Peer)
	defer p.tidyLocked(pr)
	var with, empty []*session
	for _, s := range pr.sessions {
		if !s.ticket {
			with = append(with, s)
			if len(s.carriers)+s.attempts+s.further == 0 {
				empty = append(empty, s)
			}
		}
	}
	if len(with) >= maxPerPeer && len(empty) > 0 {
		p.giveBackLocked(empty[0], wire.ReasonReplaced)
		with = with[1:]
	}
	if len(p.sessions) >= maxSessions || len(with) >= maxPerPeer {
		return wire.ReasonBusy, fmt.Errorf("there are %d sessions, %d with this peer", len(p.sessions), len(with))
	}
	p.addLocked(pr, info, leg, log, false)
	return wire.ReasonNone, nil
}

// newSession returns a session that nobody knows yet.
func (p *Pool) newSession(pr *peer, info wire.Session, leg Leg, log *slog.Logger) *session {
	s := &session{
		info: info, pool: p, peer: pr, leg: leg, since: time.Now(), log: log,
		gone: make(chan struct{}), joined: make(chan struct{}), carriers: make(map[*member]int),
		places: make(map[string]netip.AddrPort),
	}
	s.ctx, s.stop = context.WithCancel(p.tasks.ctx)
	s.meeting = meeting.New(meeting.Config{
		Session: info, Leg: leg, TLS: p.tls(info), Tunnels: &view{p, pr}, Again: leg.Relay() == "", Refused: s.relayRefuses, Log: log,
	})
	return s
}

// addLocked adds a session and begins to make its first carrier.
func (p *Pool) addLocked(pr *peer, info wire.Session, leg Leg, log *slog.Logger, ticket bool) {
	s := p.newSession(pr, info, leg, log)
	s.ticket, s.attempts = ticket, 1
	_, s.lan = leg.(*lanLeg)
	p.sessions[info.ID] = s
	pr.sessions = append(pr.sessions, s)
	p.tasks.Go(s.run)
}

func (p *Pool) tls(info wire.Session) *tls.Config {
	check := identity.Expect(identity.Portal, info.Peer)
	if info.Leg == 0 {
		return p.Credentials.ClientTLS(identity.ProtocolTunnel, check)
	}
	return p.Credentials.ServerTLS(identity.ProtocolTunnel, check)
}

// run makes the session's first carrier, and waits until the session is over.
func (s *session) run() {
	if s.ticket {
		s.wait()
	} else {
		s.first()
	}
	<-s.gone
	s.stop()
	s.work.Wait()
	s.leg.Close()
}

// first makes carrier 0.
func (s *session) first() {
	// Whoever has announced the session has heard of the relay.
	s.pool.tries.note(s.leg.Relay())
	met, err := s.meeting.First(s.ctx)
	if err == nil {
		err = s.attach(met)
	}
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s.err = err
	switch {
	case err == nil:
		s.peer.took = time.Since(s.since)
	case s.ctx.Err() == nil: // nobody called it off
		s.leg.Failed()
		s.log.Info("no carrier came up", "relay", s.leg.Relay(), "error", err)
	}
	s.attempts--
	close(s.joined)
	p.settleLocked(s.peer)
	if s.peer.search != nil {
		s.peer.search.wake()
	}
}

// againLocked makes a carrier in a session that has none that answers, if the
// peer does the same. On the local network wait does that, in a session of its own.
func (s *session) againLocked() {
	if s.ended || s.attempts > 0 || s.lan {
		return
	}
	s.attempts++
	s.refused = false
	s.work.Go(func() {
		if err := s.again(); err != nil {
			s.log.Debug("no way back in this session", "error", err)
		}
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		s.attempts--
		s.pool.settleLocked(s.peer)
	})
}

// again makes a carrier without a number, when it is the relay's turn.
func (s *session) again() error {
	ctx, cancel := context.WithTimeout(s.ctx, againTime)
	defer cancel()
	if err := s.pool.tries.wait(ctx, s.leg.Relay()); err != nil {
		return err
	}
	s.leg.Refresh()
	met, err := s.meeting.Again(ctx)
	if err != nil {
		return err
	}
	return s.attach(met)
}

// relayRefuses notes that nothing listens where the relay should be: there is
// nothing to wait for.
func (s *session) relayRefuses() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.refused = true
	if s.peer.search != nil {
		s.peer.search.wake()
	}
}

// attach gives a carrier to its tunnel, which may be a new one.
func (s *session) attach(met meeting.Met) error {
	p := s.pool
	m, err := s.tunnelOf(met)
	if err != nil {
		met.Conn.Abort(err)
		return err
	}
	if err := m.tunnel.Attach(met.Conn, met.Way); err != nil {
		met.Conn.Abort(err)
		p.mu.Lock()
		defer p.mu.Unlock()
		s.leaveLocked(m)
		p.settleLocked(s.peer)
		return err
	}
	p.mu.Lock()
	m.up = true
	if a := s.peer.attempt; a != nil && a.over.IsZero() {
		close(a.done)
	}
	s.peer.attempt, s.peer.lost = nil, ""
	if s.peer.search != nil {
		s.peer.search.wake()
	}
	left := s.peer.besideLocked(m, p.Credentials.ID.Name)
	p.settleLocked(s.peer)
	p.mu.Unlock()
	s.log.Info("carrier up", "tunnel", m.identity.ID.String(), "new", met.New, "relay", s.leg.Relay(), "path", met.Way.String())
	for _, o := range left {
		m.tunnel.Retire(o.info.ID, wire.ReasonReplaced)
	}
	return nil
}

// tunnelOf returns the tunnel that a carrier belongs to, and counts the
// carrier.
func (s *session) tunnelOf(met meeting.Met) (*member, error) {
	p := s.pool
	if met.New {
		m, err := p.begin(s, met)
		if err == nil {
			m.aim()
		}
		return m, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range s.peer.tunnels {
		if m.identity.ID == met.Tunnel.ID && !m.over() && !s.ended {
			if s.peer.carriersLocked(m) == 0 || !m.trouble.IsZero() {
				m.recoveries++
				m.trouble = time.Time{}
				m.flowsLocked(time.Now())
			}
			s.comeLocked(m, met)
			return m, nil
		}
	}
	return nil, tunnel.ErrClosed
}

// besideLocked returns the sessions that a tunnel has carriers in beside its
// main one: the newest that the server has announced. Of two portals that have
// met in two places at once, the one with the smaller name leaves; the other
// leaves only what the server has ended or replaced. Where they meet on the local network
// costs nobody anything, and stays.
func (pr *peer) besideLocked(m *member, own string) (list []*session) {
	var main *session
	for _, s := range pr.sessions {
		if s.carriers[m] > 0 && !s.ended && !s.lan && (main == nil || main.ticket || !s.ticket) {
			main = s
		}
	}
	for _, s := range pr.sessions {
		if main != nil && s != main && s.carriers[m] > 0 && !s.lan && (own < pr.name || s.ended || s.info.ID == main.info.Replaces) {
			list = append(list, s)
		}
	}
	return list
}

// comeLocked counts a carrier of a tunnel.
func (s *session) comeLocked(m *member, met meeting.Met) {
	s.carriers[m]++
	if !s.direct {
		m.at = s
	}
	if mode, addr := s.leg.Mode(); mode == met.Way.String() {
		s.places[mode] = addr
	}
}

// leaveLocked takes a carrier of a tunnel off the session.
func (s *session) leaveLocked(m *member) {
	if s.carriers[m]--; s.carriers[m] <= 0 {
		delete(s.carriers, m)
	}
	if s.direct {
		s.emptyLocked()
	}
}

// over reports whether no carrier is made any more.
func (s *session) over() bool { return s.ctx.Err() != nil }

// within returns a context that ends with ctx and when the session is over.
func (s *session) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// jitter draws a pause between half of d and all of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// sleep waits, and reports false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
