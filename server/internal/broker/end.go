package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/couple"
)

// end ends an open session: the relay and both portals are told, but for the
// one that told us (done).
func (b *Broker) end(now time.Time, s *session, reason wire.Reason, done string) {
	b.close(now, s)
	for _, n := range s.names {
		if n != done {
			b.toPortal(n, wire.SessionEnded{Session: s.id, Reason: reason})
		}
	}
	record := recordOf(s, audit.Ended)
	record.Reason = reason.String()
	if r := b.relays[s.relay]; r == nil || !r.online {
		b.out.Record(record)
		return
	}
	b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: reason})
	b.ending[s.id] = ending{record: record, relay: s.relay, deadline: now.Add(endTime)}
}

// close forgets an open session. If the tunnel was to move to it and has not left
// the old one yet, it may have to move again.
func (b *Broker) close(now time.Time, s *session) {
	b.remove(s)
	if old := b.sessions[s.replaces]; old != nil {
		old.left, old.pause = false, now.Add(movePause)
	}
}

// Done handles a portal's word that its tunnel of a session is closed. A
// session that is not its own is as unknown to it as one that never was.
func (b *Broker) Done(now time.Time, name string, m wire.SessionDone) {
	s := b.sessions[m.Session]
	if s == nil || !s.open || s.side(name) < 0 {
		return
	}
	reason := m.Reason
	switch {
	case s.left:
		reason = wire.ReasonReplaced // the tunnel has moved, whatever the portal calls it
	case reason == wire.ReasonShutdown:
		reason = wire.ReasonPeerOffline // of a relay it would mean that the tunnel may go on
	}
	b.end(now, s, reason, name)
	b.unwanted(s, reason)
}

// Unjoined ends what two portals have between them unless a grant still joins
// them. reason says what became of the grants.
func (b *Broker) Unjoined(now time.Time, x, y string, reason wire.Reason) {
	list := b.byPair[couple.Of(x, y)]
	if len(list) == 0 || b.grants.Joined(x, y, now) {
		return
	}
	for _, s := range slices.Clone(list) {
		if s.open {
			b.end(now, s, reason, "")
			continue
		}
		b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: reason})
		b.fail(s, reason)
	}
}

// Revoke ends all sessions of a portal whose key counts no more.
func (b *Broker) Revoke(now time.Time, name string) {
	for _, s := range b.sessions {
		switch {
		case s.side(name) < 0:
		case s.open:
			b.end(now, s, wire.ReasonRevoked, "")
		default:
			b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonRevoked})
			b.fail(s, wire.ReasonPeerOffline)
		}
	}
}

// Tick does what is due at the time now. It is called about once a second.
func (b *Broker) Tick(now time.Time) {
	for _, s := range b.sessions {
		switch {
		case !s.open && !now.Before(s.deadline):
			b.toRelay(s.relay, wire.EndSession{ID: s.id, Reason: wire.ReasonTimeout})
			if r := b.relays[s.relay]; r != nil {
				r.avoid = now.Add(avoidTime)
			}
			b.again(now, s)
		case s.open && !s.misplaced.IsZero() && !now.Before(s.misplaced):
			b.end(now, s, wire.ReasonRelayRefused, "")
		case s.open:
			b.tellAgain(s)
		}
	}
	b.moves = moveRate
	b.moveSome(now)
	for _, r := range b.relays {
		switch away := now.Sub(r.since); {
		case r.online && !r.checked && away >= confirmTime:
			b.check(now, r)
		case !r.online && away >= forgetTime:
			b.forget(r)
		}
	}
	for id, e := range b.ending {
		if !now.Before(e.deadline) {
			delete(b.ending, id)
			b.out.Record(e.record)
		}
	}
}

// check ends the sessions that a relay no longer holds. It is called when the
// relay has said what it does, once for each of its connections.
func (b *Broker) check(now time.Time, r *relay) {
	if r.checked {
		return
	}
	r.checked = true
	for _, s := range b.sessions {
		if s.relay == r.name && s.open && !s.confirmed {
			b.end(now, s, wire.ReasonCarrierLost, "")
		}
	}
}

// forget lets go of the sessions of a relay that stays away. The portals are
// not told: their tunnels may well go on.
func (b *Broker) forget(r *relay) {
	for _, s := range b.sessions {
		if s.relay == r.name {
			b.remove(s)
			record := recordOf(s, audit.Ended)
			record.Reason, record.Detail = wire.ReasonCarrierLost.String(), "the relay is away"
			b.out.Record(record)
		}
	}
	b.tidyRelay(r)
}

// SessionView is a session as the operator is shown it.
type SessionView struct {
	ID      wire.SessionID `json:"session"`
	Opener  string         `json:"opener"`
	Peer    string         `json:"peer"`
	Forward string         `json:"forward"` // for which it was opened; empty if that was before a restart
	Relay   string         `json:"relay"`
	State   string         `json:"state"` // asking, open, leaving: its tunnel is on the way to another
	Since   time.Time      `json:"since,omitzero"`
	// RoundTrips are the opener's and the peer's to the relay when it was chosen; 0: not known.
	RoundTrips [2]Milliseconds `json:"round_trips_ms"`
	Pinned     bool            `json:"pinned"` // the policy says where
}

// Milliseconds is a time as people are shown it.
type Milliseconds float64

func milliseconds(d time.Duration) Milliseconds {
	return Milliseconds(d.Round(10*time.Microsecond).Seconds() * 1000)
}

// Sessions returns all sessions, by the names of their portals.
func (b *Broker) Sessions(now time.Time) []SessionView {
	list := make([]SessionView, 0, len(b.sessions))
	for _, s := range b.sessions {
		v := SessionView{ID: s.id, Opener: s.names[0], Peer: s.names[1], Forward: s.forward, Relay: s.relay, State: "asking"}
		if s.open {
			v.State, v.Since = "open", s.opened
		}
		if s.left {
			v.State = "leaving"
		}
		v.RoundTrips = [2]Milliseconds{milliseconds(s.trips[0]), milliseconds(s.trips[1])}
		v.Pinned = b.grants.Pin(s.names[0], s.names[1], now) == s.relay
		list = append(list, v)
	}
	slices.SortFunc(list, func(x, y SessionView) int {
		if c := compare(x.Opener, y.Opener); c != 0 {
			return c
		}
		return compare(x.Peer, y.Peer)
	})
	return list
}
