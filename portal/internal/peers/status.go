package peers

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/portal/internal/path/direct"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Status is one tunnel as "netport-portal status" shows it, or a session in
// which one is being made.
type Status struct {
	Peer       string    `json:"peer"`
	Tunnel     string    `json:"tunnel,omitempty"` // its id; empty: none yet
	Session    string    `json:"session"`          // of the main carrier
	Up         bool      `json:"up"`               // it has a carrier
	Since      time.Time `json:"since"`
	Waiting    time.Time `json:"waiting_since,omitzero"` // for a way back: no carrier is left, or none answers
	Recoveries int       `json:"recoveries"`             // how often it has found one
	Path       string    `json:"path,omitempty"`         // of the main carrier; empty: none yet
	Relay      string    `json:"relay"`                  // empty: the path is direct
	Address    string    `json:"address,omitempty"`      // of the relay, or of the peer where the path is direct
	Opener     bool      `json:"opener"`                 // this portal is the TLS client of the session
	RTT        float64   `json:"rtt_ms,omitempty"`       // 0: not measured yet
	Carriers   int       `json:"carriers"`
	Ways       []Way     `json:"ways,omitempty"`   // of each carrier
	Direct     *Search   `json:"direct,omitempty"` // for direct paths; nil: none are looked for
	Streams    int       `json:"streams"`
	Flows      int       `json:"flows"`
	Sent       uint64    `json:"sent"` // bytes of frames
	Received   uint64    `json:"received"`
	Opened     uint64    `json:"opened"`
	Refused    uint64    `json:"refused"`
	Dropped    uint64    `json:"dropped"` // datagrams
}

// Way is how one carrier goes.
type Way struct {
	Path    string           `json:"path"`
	Kind    string           `json:"kind"` // TLS or QUIC
	Relay   string           `json:"relay"`
	Session string           `json:"session"`
	Key     identity.KeyHash `json:"peer_key"`          // what the peer has proven itself with
	Until   time.Time        `json:"certificate_until"` // its certificate's end
	RTT     float64          `json:"rtt_ms,omitempty"`
	Silent  bool             `json:"silent,omitempty"` // an answer is overdue
	Direct  bool             `json:"direct"`           // it goes by no relay
	Streams int              `json:"streams"`          // on it
	Flows   bool             `json:"flows,omitempty"`  // they take it
	Why     string           `json:"why,omitempty"`    // streams do not
}

// Search is that for the direct paths of a tunnel.
type Search struct {
	NAT   string      `json:"nat"`   // of this portal
	Own   []Candidate `json:"own"`   // where the peer was told that this portal may be reached
	Peers []Candidate `json:"peers"` // where the peer may be
}

// Candidate is where a portal may be reached.
type Candidate struct {
	Transport string  `json:"transport"` // udp or tcp
	Address   string  `json:"address"`
	Origin    string  `json:"origin"`          // how it is known
	State     string  `json:"state,omitempty"` // of a peer's: how it stands there, or why nothing is sent
	RTT       float64 `json:"rtt_ms,omitempty"`
	Asked     int     `json:"asked,omitempty"` // probes sent
}

// Status returns all tunnels, and the sessions in which none is yet, by peer,
// the newest first.
func (p *Pool) Status() []Status {
	list := []Status{}
	p.mu.Lock()
	for _, s := range p.sessions {
		if !s.ticket && !s.direct && len(s.peer.tunnels) == 0 {
			list = append(list, s.status())
		}
	}
	p.mu.Unlock()
	for _, m := range p.members() {
		list = append(list, m.status())
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), b.Since.Compare(a.Since), cmp.Compare(a.Session, b.Session)) < 0
	})
	return list
}

// status is that of a session: of its place, and nothing of its carriers.
func (s *session) status() Status {
	return Status{
		Peer: s.peer.name, Session: s.info.ID.String(), Since: s.since.UTC().Truncate(time.Second),
		Relay: s.leg.Relay(), Opener: s.info.Leg == 0,
	}
}

func (m *member) status() Status {
	t := m.tunnel.Stats()
	p := m.pool
	p.mu.Lock()
	ways := m.ways
	p.mu.Unlock()
	var found *Search
	if ways != nil {
		found = searched(ways.State())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Peer: m.peer.name}
	if m.at != nil {
		s = m.at.status()
	}
	main := -1
	for i, c := range t.Each {
		s.Ways = append(s.Ways, p.wayLocked(c))
		if main < 0 || better(c, t.Each[main]) {
			main = i
		}
	}
	if main >= 0 {
		if o := p.sessions[t.Each[main].Session]; o != nil {
			s = o.statusOf(s, t.Each[main].Way)
		}
	}
	s.Tunnel, s.Since = m.identity.ID.String(), m.since.UTC().Truncate(time.Second)
	s.Up, s.Recoveries, s.Waiting = len(t.Each) > 0, m.recoveries, t.Lingering
	if s.Waiting.IsZero() && !slices.ContainsFunc(s.Ways, func(w Way) bool { return !w.Silent }) {
		s.Waiting = m.trouble
	}
	s.Direct = found
	s.Waiting = s.Waiting.UTC().Truncate(time.Second)
	s.RTT, s.Carriers, s.Streams, s.Flows = milliseconds(t.RTT), t.Carriers, t.Streams, t.Flows
	s.Sent, s.Received, s.Opened, s.Refused, s.Dropped = t.Sent, t.Received, t.Opened, t.Refused, t.Drops
	return s
}

func (p *Pool) wayLocked(c tunnel.CarrierStats) Way {
	w := Way{
		Path: c.Way, Kind: c.Kind.String(), Session: c.Session.String(), Key: identity.HashKey(c.Peer), Until: c.Peer.NotAfter.UTC(),
		RTT: milliseconds(c.RTT), Silent: c.Silent, Direct: c.Direct, Streams: c.Streams, Flows: c.Flows, Why: c.Why,
	}
	if o := p.sessions[c.Session]; o != nil {
		w.Relay = o.leg.Relay()
	}
	return w
}

// Ways measures a round trip on each carrier of a tunnel at once; one that has not
// answered by the end of ctx has none.
func (p *Pool) Ways(ctx context.Context, t *tunnel.Tunnel) []Way {
	list := []Way{}
	for _, c := range t.PingEach(ctx) {
		p.mu.Lock()
		list = append(list, p.wayLocked(c))
		p.mu.Unlock()
	}
	return list
}

// searched is the state of a search, for people.
func searched(d direct.State) *Search {
	s := &Search{NAT: d.NAT.String(), Own: []Candidate{}, Peers: []Candidate{}}
	for _, c := range d.Own {
		s.Own = append(s.Own, candidate(c.Transport, c.Origin, c.Addr))
	}
	for _, t := range d.Tries {
		c := candidate(t.Transport, t.Origin, t.Addr)
		c.State, c.RTT, c.Asked = t.Use, milliseconds(t.RTT), t.Asked
		s.Peers = append(s.Peers, c)
	}
	for _, r := range d.Refused {
		c := candidate(r.Candidate.Transport, r.Candidate.Origin, r.Candidate.Addr)
		c.State = "never probed: " + r.Why
		s.Peers = append(s.Peers, c)
	}
	return s
}

func candidate(t wire.CandidateTransport, o wire.CandidateOrigin, addr netip.AddrPort) Candidate {
	return Candidate{Transport: t.String(), Address: addr.String(), Origin: o.String()}
}

// statusOf says in s that the main carrier is in this session.
func (s *session) statusOf(status Status, way string) Status {
	place := s.status()
	status.Session, status.Relay, status.Opener, status.Path = place.Session, place.Relay, place.Opener, way
	if addr, ok := s.places[way]; ok {
		status.Address = addr.String()
	}
	return status
}

// better reports whether a is more of a tunnel's main carrier than b: one that
// streams take, or would.
func better(a, b tunnel.CarrierStats) bool {
	if a.Barred != b.Barred {
		return b.Barred
	}
	return a.Rank < b.Rank
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Live returns the status of the newest tunnel to a peer, if there is one; it
// may have no carrier (Up).
func (p *Pool) Live(peer string) (Status, *tunnel.Tunnel, bool) {
	p.mu.Lock()
	var m *member
	if pr := p.peers[peer]; pr != nil {
		if m = pr.liveLocked(); m == nil {
			for _, o := range pr.tunnels {
				if o.up && !o.over() {
					m = o
				}
			}
		}
	}
	p.mu.Unlock()
	if m == nil {
		return Status{}, nil, false
	}
	return m.status(), m.tunnel, true
}

// Failed returns when and why the last attempt to open a tunnel to a peer has
// failed, if that was a moment ago.
func (p *Pool) Failed(peer string) (at time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pr := p.peers[peer]
	if pr == nil || pr.attempt == nil || pr.attempt.over.IsZero() || time.Since(pr.attempt.over) > saidTime {
		return time.Time{}, nil
	}
	return pr.attempt.over, pr.attempt.err
}
