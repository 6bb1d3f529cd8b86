package peers

import (
	"cmp"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
)

// Status is one tunnel as "netport-portal status" shows it.
type Status struct {
	Peer     string    `json:"peer"`
	Session  string    `json:"session"`
	Up       bool      `json:"up"`
	Since    time.Time `json:"since"`
	Path     string    `json:"path,omitempty"` // relay-packet, relay, relay-shared or relay-tls: of the newest carrier; empty: none yet
	Relay    string    `json:"relay"`
	Address  string    `json:"address,omitempty"` // of the relay
	Opener   bool      `json:"opener"`            // this portal asked for the session
	RTT      float64   `json:"rtt_ms,omitempty"`  // 0: not measured yet
	Carriers int       `json:"carriers"`
	Streams  int       `json:"streams"`
	Flows    int       `json:"flows"`
	Sent     uint64    `json:"sent"` // bytes of frames
	Received uint64    `json:"received"`
	Opened   uint64    `json:"opened"`
	Refused  uint64    `json:"refused"`
	Dropped  uint64    `json:"dropped"` // datagrams
}

// Status returns all tunnels, by peer, the newest first.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	var members []*member
	for _, m := range p.sessions {
		members = append(members, m)
	}
	p.mu.Unlock()
	list := make([]Status, 0, len(members))
	for _, m := range members {
		list = append(list, m.status())
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), b.Since.Compare(a.Since), cmp.Compare(a.Session, b.Session))
	})
	return list
}

func (m *member) status() Status {
	t := m.tunnel.Stats()
	mode, addr := m.leg.Mode()
	s := Status{
		Peer: m.session.Peer, Session: m.session.ID.String(), Since: m.since.UTC().Truncate(time.Second),
		Path: mode, Relay: m.leg.Relay(), Opener: m.session.Leg == 0,
		Up: t.Up, RTT: float64(t.RTT.Microseconds()) / 1000, Carriers: t.Carriers, Streams: t.Streams, Flows: t.Flows,
		Sent: t.Sent, Received: t.Received, Opened: t.Opened, Refused: t.Refused, Dropped: t.Drops,
	}
	if addr.IsValid() {
		s.Address = addr.String()
	}
	return s
}

// Live returns the status of the tunnel to a peer that is up, if there is one.
func (p *Pool) Live(peer string) (Status, *tunnel.Tunnel, bool) {
	p.mu.Lock()
	m := p.liveLocked(peer)
	p.mu.Unlock()
	if m == nil {
		return Status{}, nil, false
	}
	s := m.status()
	return s, m.tunnel, s.Up
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
