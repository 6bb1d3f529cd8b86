package tunnel

import (
	"crypto/x509"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/wire"
)

// Stats is a snapshot for "status".
type Stats struct {
	Up        bool          // a carrier is joined and proven
	RTT       time.Duration // smoothed, of the fastest carrier; 0: not measured yet
	Carriers  int
	Streams   int // with those that wait for the peer's answer to a RESET
	Flows     int
	Sent      uint64 // bytes of frames, without TLS
	Received  uint64
	Opened    uint64    // streams, flows and probes of either side so far
	Refused   uint64    // of these, how many were refused here
	Drops     uint64    // datagrams dropped here, because a queue was full
	Stray     uint64    // frames for streams that are not open
	Held      int64     // bytes held or promised, see Budget
	IdleSince time.Time // zero while anything is open
	Lingering time.Time // when the peer was last heard, while there is no carrier; zero: there is one
	Each      []CarrierStats
}

// CarrierStats is one carrier of a tunnel.
type CarrierStats struct {
	Session    wire.SessionID
	Connection uint16
	Kind       wire.CarrierKind
	Way        string
	Peer       *x509.Certificate // what the peer has proven itself with
	RTT        time.Duration     // smoothed; 0: not measured yet
	Silent     bool              // it owes an answer
	Retired    bool              // it is to be left
	Barred     bool              // neither streams nor flows may take it
	Direct     bool              // it goes by no relay
	Streams    int               // that are on it
	Flows      bool              // flows take it
	Rank       int               // for streams: the lowest is taken
	Why        string            // why no stream takes it, for people; empty: they do
}

// Stats returns a snapshot.
func (t *Tunnel) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.past
	s.Up = len(t.links) > 0 && !t.over
	s.Carriers = len(t.links)
	for _, l := range t.links {
		c := l.conn.Stats()
		s.Sent += c.Sent
		s.Received += c.Received
		s.Drops += c.Dropped
		if s.RTT == 0 || c.RTT > 0 && c.RTT < s.RTT {
			s.RTT = c.RTT
		}
		s.Each = append(s.Each, t.statsLocked(l, c))
	}
	s.Streams = t.streams
	s.Flows = len(t.ends) - t.streams
	s.Opened = t.opened.Load()
	s.Refused = t.refused.Load()
	s.Drops += t.drops.Load()
	s.Stray = t.stray.Load()
	s.Held = t.budget.Used()
	s.IdleSince = t.idleSince
	s.Lingering = t.lostAt
	return s
}

// statsLocked is one carrier.
func (t *Tunnel) statsLocked(l *link, c carrier.Stats) CarrierStats {
	return CarrierStats{
		Session: l.conn.Session(), Connection: l.conn.Connection(), Kind: l.conn.Kind(), Way: l.way.String(), Peer: l.conn.Peer(),
		RTT: c.RTT, Silent: l.silent.Load(), Retired: l.retired.Load(),
		Barred: !t.mayTakeLocked(l), Direct: l.direct, Streams: int(l.streams.Load()), Flows: l == t.flowAt.Load(), Rank: l.rank(wire.CarrierTCP),
		Why: t.whyNotLocked(l),
	}
}

// whyNotLocked says why streams take others and not this one.
func (t *Tunnel) whyNotLocked(l *link) string {
	best := t.pickLocked(wire.CarrierTCP, nil)
	rank := l.rank(wire.CarrierTCP)
	switch {
	case !t.mayTakeLocked(l):
		return "the policy forbids it"
	case best == nil || rank <= best.rank(wire.CarrierTCP):
		return ""
	case rank >= rankSilent:
		return "it does not answer"
	case rank >= rankRetired:
		return "it is to be left"
	case rank >= rankDoubt:
		return "it may not answer any more"
	case rank >= rankPath && l.direct:
		return "a round trip by the relay is clearly shorter"
	case rank >= rankPath:
		return "there is a direct path"
	case rank >= rankDetour:
		return "a round trip on another direct path is clearly shorter"
	}
	return "TCP carries more"
}
