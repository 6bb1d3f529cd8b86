package peers

import (
	"context"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/path/direct"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

const (
	// dialTime is how long a carrier on a direct way may take that both portals have
	// found open.
	dialTime = 10 * time.Second
	// A carrier on a direct way that did not come up, or not for longer than lastsTime,
	// is followed by a pause: of firstPause at first, then longer, up to maxSeekPause, or
	// maxLostPause where it came up: a way that falls silent once more costs 2 s, so less
	// than a tenth of the time. Only the TLS client makes them; the server is there whenever
	// the client comes.
	lastsTime    = 15 * time.Second
	maxSeekPause = time.Minute
	maxLostPause = 30 * time.Second
)

// Direct is the search for the direct ways of one tunnel, and those that are found;
// *direct.Path is one.
type Direct interface {
	Leg
	// Peer takes the candidates of the other portal.
	Peer(list []wire.Candidate)
	// Here takes that the other portal is proven to run on this machine.
	Here()
	// Replace has carriers made beside those that there are, which are to be left.
	Replace()
	// Ready waits until there is a way that a carrier is to be made on.
	Ready(ctx context.Context) error
	State() direct.State
}

// Directs opens them. Each must be closed, when no carrier is left on its ways.
type Directs interface {
	Open(t direct.Tunnel) Direct
}

// DirectPaths makes Directs of the Finder that there is.
func DirectPaths(f *direct.Finder) Directs { return directs{f} }

type directs struct{ finder *direct.Finder }

func (d directs) Open(t direct.Tunnel) Direct { return d.finder.Open(t) }

// aim has direct ways looked for, or no longer, as the grants of now say, and what runs in
// the tunnel keep to what they allow. A tunnel that no grant needs looks for none.
func (m *member) aim() {
	p := m.pool
	paths := p.Paths(m.peer.name)
	m.tunnel.SetPaths(paths)
	_, joined := p.Joined(m.peer.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch wanted := joined && paths != grant.DirectNever && p.Directs != nil && !p.closed && !m.over(); {
	case wanted && !m.seeking:
		m.seeking = true
		p.tasks.Go(m.seek)
	case !wanted && m.direct != nil:
		m.endDirectLocked()
	}
	if m.peer.carriersLocked(m) > 0 && m.peer.relayedLocked(m) == 0 && !p.closed {
		p.searchLocked(m.peer) // for a relay in reserve
	}
}

// endDirectLocked ends the search. Its carriers are left; they end with the tunnel at
// the latest.
func (m *member) endDirectLocked() {
	s := m.direct
	if s == nil || s.ended {
		return
	}
	s.ended = true
	s.stop()
	m.pool.tasks.Go(func() { m.tunnel.Leave(s.info.ID, wire.ReasonNotDirect) })
	s.emptyLocked()
}

// emptyLocked notes that nothing is left of a direct session that has ended.
func (s *session) emptyLocked() {
	if s.ended && len(s.carriers) == 0 && !s.isGone() {
		close(s.gone)
	}
}

func (s *session) isGone() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// seek makes carriers on direct ways, as long as the tunnel lives and there may be such
// ways.
func (m *member) seek() {
	p := m.pool
	info := wire.Session{ID: m.identity.Direct(), Peer: m.peer.name}
	if !m.client {
		info.Leg = 1
	}
	log := p.Log.With("peer", m.peer.name, "session", info.ID.String())
	toClient, toServer, key := m.identity.Probe()
	secure := p.tls(info)
	ways := p.Directs.Open(direct.Tunnel{
		Peer: m.peer.name, Client: m.client, Keys: probe.Keys{ToClient: toClient, ToServer: toServer, Key: key},
		TLS: secure, QUIC: carrier.QUICConfig(), Offer: m.tunnel.Offer,
	})
	s := p.newSession(m.peer, info, ways, log)
	s.direct = true
	close(s.joined)
	p.mu.Lock()
	if p.closed || m.over() {
		m.seeking = false
		s.stop()
		p.mu.Unlock()
		ways.Close()
		return
	}
	m.direct, m.ways = s, ways
	p.sessions[info.ID] = s
	p.mu.Unlock()
	m.hearing.Lock()
	m.passLocked()
	m.hearing.Unlock()
	s.meet(m, ways)
	<-s.gone
	p.mu.Lock()
	m.direct, m.ways, m.seeking = nil, nil, false
	delete(p.sessions, info.ID)
	p.mu.Unlock()
	ways.Close()
	p.Review() // it may be wanted again
}

// hear is tunnel.Config.Candidates.
func (m *member) hear(said wire.Candidates) {
	m.hearing.Lock()
	defer m.hearing.Unlock()
	m.heard, m.told = said, true
	m.passLocked()
}

// passLocked passes on what the peer has said last, if there is who looks for it.
func (m *member) passLocked() {
	m.pool.mu.Lock()
	ways := m.ways
	m.pool.mu.Unlock()
	if ways == nil || !m.told {
		return
	}
	if theirs := m.identity.Machine(m.pool.Machine, !m.client); m.heard.Machine == theirs && theirs != [16]byte{} {
		ways.Here()
	}
	ways.Peer(m.heard.List)
}

// meet makes a carrier each time that a way is ready, until the session is over.
func (s *session) meet(m *member, ways Direct) {
	pause, most := firstPause, maxSeekPause
	var last time.Time // when the last carrier came up, or did not
	for ways.Ready(s.ctx) == nil && s.ctx.Err() == nil {
		switch {
		case time.Since(last) >= lastsTime:
			pause = firstPause
		case !m.client:
			sleep(s.ctx, firstPause)
		default:
			pause = min(pause, most)
			sleep(s.ctx, jitter(pause))
			pause *= 2
		}
		ctx, cancel := context.WithTimeout(s.ctx, dialTime)
		met, err := s.meeting.Join(ctx, m.identity)
		cancel()
		if err == nil {
			err = s.attach(met)
		}
		if most = maxLostPause; err != nil && s.ctx.Err() == nil {
			most = maxSeekPause
			ways.Failed()
			s.log.Debug("no carrier came up on a direct way", "error", err)
		}
		last = time.Now()
	}
}
