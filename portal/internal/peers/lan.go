package peers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/path/direct"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// LAN finds portals on the local network; *lan.Finder does.
type LAN interface {
	// Look tells where the peer may be, whenever it has heard something new, and has the
	// peer find this portal, until end is called. Only the two have the key.
	Look(own, peer string, key [32]byte, found func([]wire.Candidate)) (end func())
}

// neighbour is a peer that may be on the local network, and what both portals work out
// of the key of a grant, so that they can meet there without a server, a relay or a
// ticket.
type neighbour struct {
	peer    string
	session wire.SessionID
	probes  probe.Keys
	names   [32]byte // key of LAN
}

func newNeighbour(peer string, secret [32]byte) neighbour {
	derive := func(what string) [32]byte {
		h := hmac.New(sha256.New, secret[:])
		h.Write([]byte("netport lan " + what))
		return [32]byte(h.Sum(nil))
	}
	session, ids := derive("session"), derive("probe id")
	return neighbour{
		peer: peer, session: wire.SessionID(session[:16]), names: derive("names"),
		probes: probe.Keys{ToClient: probe.ID(ids[:8]), ToServer: probe.ID(ids[8:16]), Key: derive("probe key")},
	}
}

// neighbours returns the names of the peers that may be met on the local network.
func (p *Pool) neighbours() []string {
	if p.LAN == nil || p.Directs == nil {
		return nil
	}
	return p.Partners()
}

// neighboursFor returns those of these peers that may be met on the local network, by
// session.
func (p *Pool) neighboursFor(names []string) map[wire.SessionID]neighbour {
	list := make(map[wire.SessionID]neighbour)
	if p.LAN == nil || p.Directs == nil {
		return list
	}
	for _, name := range names {
		if secret, ok := p.Secret(name); ok && p.Paths(name) != grant.DirectNever {
			n := newNeighbour(name, secret)
			list[n.session] = n
		}
	}
	return list
}

// meetNear begins to wait for a neighbour.
func (p *Pool) meetNear(n neighbour) {
	own := p.Credentials.ID.Name
	info := wire.Session{ID: n.session, Peer: n.peer}
	if own > n.peer {
		info.Leg = 1
	}
	log := p.Log.With("peer", n.peer, "session", n.session.String())
	ways := p.Directs.Open(direct.Tunnel{
		Peer: n.peer, Client: info.Leg == 0, Heard: true, Keys: n.probes, Lasting: true,
		TLS: p.tls(info), QUIC: carrier.QUICConfig(), Offer: func([]wire.Candidate) {},
	})
	l := &lanLeg{Direct: ways}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.sessions[n.session] != nil || len(p.sessions) >= maxSessions {
		p.tasks.Go(ways.Close)
		return
	}
	l.end = p.LAN.Look(own, n.peer, n.names, ways.Peer)
	p.addLocked(p.peerLocked(n.peer), info, l, log, true)
}

// lanLeg is the way to a neighbour.
type lanLeg struct {
	Direct
	end func() // of the look for it
}

// Close ends the look, too.
func (l *lanLeg) Close() {
	l.end()
	l.Direct.Close()
}

// meetAgain makes a carrier where both portals wait: on the local network as soon as a
// way to the peer is open there.
func (s *session) meetAgain(ctx context.Context) (meeting.Met, error) {
	near, ok := s.leg.(*lanLeg)
	if !ok {
		return s.meeting.Again(ctx)
	}
	if err := near.Ready(ctx); err != nil {
		return meeting.Met{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	met, err := s.meeting.Again(ctx)
	if err != nil {
		near.Failed()
	}
	return met, err
}
