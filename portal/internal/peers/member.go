package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/wire"
)

// doubtTime is how long a tunnel that the peer does not know any more has to
// show that the peer answers on it.
const doubtTime = 2 * time.Second

var errUnheard = errors.New("nothing was heard of the relay since it was tried last")

// member is one tunnel.
type member struct {
	pool     *Pool
	peer     *peer
	identity tunnel.Identity
	tunnel   *tunnel.Tunnel
	client   bool // this portal was the TLS client of its first carrier
	since    time.Time

	hearing sync.Mutex      // guards the following
	heard   wire.Candidates // the peer's, as it has said last
	told    bool            // it has

	// The Pool's lock guards the following.
	stall      time.Time // since when nothing that is open got through; zero: it does
	trouble    time.Time // since when not all carriers answer, or none is left; zero: all do
	recoveries int       // how often another carrier has come in such a trouble
	up         bool      // its first carrier was attached
	at         *session  // at a relay in which a carrier came last
	seeking    bool      // direct ways are looked for
	direct     *session  // of these; nil: none yet
	ways       Direct    // of direct
}

// over reports whether the tunnel opens nothing more.
func (m *member) over() bool {
	select {
	case <-m.tunnel.Done():
		return true
	default:
		return false
	}
}

// relayedLocked returns how many carriers a tunnel has by relays.
func (pr *peer) relayedLocked(m *member) (n int) {
	for _, s := range pr.sessions {
		if !s.lan {
			n += s.carriers[m]
		}
	}
	return n
}

// carriersLocked returns how many carriers a tunnel has.
func (pr *peer) carriersLocked(m *member) (n int) {
	if m.direct != nil {
		n = m.direct.carriers[m]
	}
	for _, s := range pr.sessions {
		n += s.carriers[m]
	}
	return n
}

// busy reports whether something is open in the tunnel.
func (m *member) busy() bool {
	s := m.tunnel.Stats()
	return s.Streams+s.Flows > 0
}

// begin makes the tunnel whose first carrier was met in s, and counts the
// carrier. It fails where there are too many tunnels, or when the Pool closes.
func (p *Pool) begin(s *session, met meeting.Met) (*member, error) {
	m := &member{pool: p, peer: s.peer, identity: met.Tunnel, client: met.Conn.Client(), since: time.Now()}
	m.tunnel = tunnel.New(tunnel.Config{
		Client: m.client, Handler: p.Handler, Budget: p.Budget,
		Idle: idleTime, Linger: time.Duration(p.linger.Load()), Log: p.Log.With("peer", s.peer.name, "tunnel", met.Tunnel.ID.String()),
		Account: p.Account, More: m.more, Next: m.next, Came: p.Review, Trouble: m.troubled, Left: m.left,
		Paths: p.Paths(s.peer.name), Candidates: m.hear, Machine: m.identity.Machine(p.Machine, m.client),
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || p.draining || s.ended:
		return nil, tunnel.ErrClosed
	case len(s.peer.tunnels) >= maxPerPeer:
		return nil, fmt.Errorf("there are %d tunnels with this peer", len(s.peer.tunnels))
	}
	s.peer.tunnels = append(s.peer.tunnels, m)
	m.tunnel.SetLinger(time.Duration(p.linger.Load())) // it may have changed meanwhile
	s.comeLocked(m, met)
	p.tunnels.Go(m.run)
	return m, nil
}

// run serves the tunnel until it ends.
func (m *member) run() {
	p, pr := m.pool, m.peer
	err := m.tunnel.Run(p.tunnels.ctx)
	reason := doneReason(err, p.tunnels.ctx)
	p.mu.Lock()
	pr.tunnels = slices.DeleteFunc(pr.tunnels, func(o *member) bool { return o == m })
	pr.ended = reason
	up := m.up
	m.flowsLocked(time.Now())
	m.endDirectLocked()
	p.settleLocked(pr)
	p.tidyLocked(pr)
	p.mu.Unlock()
	log := p.Log.With("peer", pr.name, "tunnel", m.identity.ID.String())
	var end *tunnel.EndError
	switch {
	case !up:
	case err != nil && !(errors.As(err, &end) && end.Peer):
		log.Warn("tunnel lost", "error", err)
	default:
		log.Info("tunnel closed", "reason", reason.String())
	}
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

// next is tunnel.Config.Next.
func (m *member) next(id wire.SessionID, kind wire.CarrierKind) (connection uint16, ok bool) {
	m.pool.mu.Lock()
	s := m.pool.sessions[id]
	m.pool.mu.Unlock()
	if s == nil || s.over() {
		return 0, false
	}
	return s.meeting.Next(kind)
}

// more is tunnel.Config.More.
func (m *member) more(ctx context.Context, id wire.SessionID, connection uint16, kind wire.CarrierKind) (carrier.Conn, tunnel.Way, error) {
	p := m.pool
	p.mu.Lock()
	s := p.sessions[id]
	if s == nil || s.over() {
		p.mu.Unlock()
		return nil, nil, meeting.ErrNoWay
	}
	if !s.direct && !s.lan && p.tries.silent(s.leg.Relay()) {
		p.mu.Unlock()
		return nil, nil, errUnheard
	}
	s.further++
	p.mu.Unlock()
	ctx, cancel := s.within(ctx)
	defer cancel()
	met, err := s.meeting.More(ctx, connection, kind, m.identity)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.further--
	if err != nil {
		p.settleLocked(s.peer)
		return nil, nil, err
	}
	if s.direct && s.ended {
		met.Conn.Abort(meeting.ErrNoWay)
		return nil, nil, meeting.ErrNoWay
	}
	s.comeLocked(m, met)
	return met.Conn, met.Way, nil
}

// left is tunnel.Config.Left.
func (m *member) left(id wire.SessionID, _ error) {
	p := m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil {
		return
	}
	s.leaveLocked(m)
	p.settleLocked(m.peer)
	if !p.closed && !m.over() && m.peer.relayedLocked(m) == 0 {
		p.searchLocked(m.peer)
	}
}

// troubled is tunnel.Config.Trouble.
func (m *member) troubled(t tunnel.Trouble) {
	p := m.pool
	now, s := time.Now(), m.tunnel.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	if t != tunnel.Well && m.ways != nil {
		p.tasks.Go(m.ways.Refresh) // the network may have changed
	}
	if t == tunnel.Well {
		m.trouble = time.Time{}
		m.flowsLocked(now)
		return
	}
	m.stallsLocked(now, s)
	if m.trouble.IsZero() {
		m.trouble = time.Now()
	}
	if !p.closed && !m.over() {
		p.searchLocked(m.peer)
	}
}

// stallsLocked notes since when nothing gets through, if no carrier answers and
// something is open.
func (m *member) stallsLocked(now time.Time, s tunnel.Stats) {
	if !m.stall.IsZero() || s.Streams+s.Flows == 0 || slices.ContainsFunc(s.Each, func(c tunnel.CarrierStats) bool { return !c.Silent }) {
		return
	}
	if m.stall = now; !s.Lingering.IsZero() {
		m.stall = s.Lingering // when the peer was last heard
	}
}

// flowsLocked notes that something gets through again, or that nothing will.
func (m *member) flowsLocked(now time.Time) {
	if !m.stall.IsZero() && m.pool.Stalled != nil {
		m.pool.Stalled(m.peer.name, now.Sub(m.stall))
	}
	m.stall = time.Time{}
}

// view is a peer as its meetings see it.
type view struct {
	pool *Pool
	peer *peer
}

// Named implements meeting.Tunnels: it is the newest tunnel, but one that has
// something open and no carrier comes first.
func (v *view) Named() (tunnel.Identity, bool) {
	list := v.living()
	for _, m := range list {
		if v.pool.carriers(m) == 0 && m.busy() {
			return m.identity, true
		}
	}
	if len(list) == 0 {
		return tunnel.Identity{}, false
	}
	return list[0].identity, true
}

// Known implements meeting.Tunnels.
func (v *view) Known(id wire.TunnelID) (tunnel.Identity, bool) {
	for _, m := range v.living() {
		if m.identity.ID == id {
			return m.identity, true
		}
	}
	return tunnel.Identity{}, false
}

// Doubt implements meeting.Tunnels.
func (v *view) Doubt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doubtTime)
	defer cancel()
	var asking sync.WaitGroup
	for _, m := range v.living() {
		if m.tunnel.Stats().Received == 0 {
			// The peer has not said HELLO on it yet. It may be about to, and ask
			// this portal the same meanwhile.
			continue
		}
		asking.Go(func() {
			if v.pool.answering(m) {
				if _, err := m.tunnel.Ping(ctx); err == nil {
					return
				}
			}
			m.tunnel.Close(wire.ReasonCarrierLost, "the other portal has begun anew and knows this tunnel no more")
		})
	}
	asking.Wait()
}

// living returns the peer's tunnels that are not over, the newest first.
func (v *view) living() (list []*member) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	for _, m := range slices.Backward(v.peer.tunnels) {
		if !m.over() {
			list = append(list, m)
		}
	}
	return list
}

// carriers returns how many carriers a tunnel has.
func (p *Pool) carriers(m *member) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.peer.carriersLocked(m)
}

// answering reports whether a tunnel has a carrier that may stay and on which no
// answer is overdue.
func (p *Pool) answering(m *member) bool {
	each := m.tunnel.Stats().Each
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range each {
		if s := p.sessions[c.Session]; s != nil && !s.ended && !c.Silent && !c.Retired {
			return true
		}
	}
	return false
}
