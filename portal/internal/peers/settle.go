package peers

import (
	"slices"

	"github.com/netport/netport/proto/wire"
)

// Ended takes the end of a session: its carriers go. Unless the reason is a
// passing one, so do their tunnels. It implements control.Sessions.
func (p *Pool) Ended(id wire.SessionID, reason wire.Reason) {
	p.mu.Lock()
	s := p.sessions[id]
	if s == nil {
		p.mu.Unlock()
		return
	}
	if s.joining() && reason == wire.ReasonCarrierLost { // the other portal has noticed first
		s.leg.Failed()
	}
	s.ended = true
	s.stop()
	var of []*member
	for _, m := range s.peer.tunnels {
		if s.carriers[m] > 0 || m.at == s { // it may have lost its carriers by this end already
			of = append(of, m)
		}
	}
	p.settleLocked(s.peer)
	if p.peers[s.peer.name] == s.peer && !p.closed {
		p.searchLocked(s.peer)
	}
	p.mu.Unlock()
	for _, m := range of {
		if reason.Passing() {
			m.tunnel.Retire(id, reason)
		} else {
			m.tunnel.Close(reason, "the server ended the session")
		}
	}
}

// settleLocked gives back the sessions with a peer in which nothing goes on, if
// nothing is to be made there either: another session carries, or there is no
// tunnel. What is wanted with a ticket, keepTickets begins anew.
func (p *Pool) settleLocked(pr *peer) {
	carries := slices.ContainsFunc(pr.sessions, func(s *session) bool { return len(s.carriers) > 0 && !s.ended })
	for _, s := range slices.Clone(pr.sessions) {
		reason := wire.ReasonReplaced
		switch {
		case len(s.carriers)+s.attempts+s.further > 0:
			continue
		case p.closed:
			reason = wire.ReasonShutdown
		case s.err != nil && len(pr.tunnels) == 0:
			reason = wire.ReasonCarrierLost
		case len(pr.tunnels) == 0:
			reason = pr.ended
		case !carries && !s.ended && !s.ticket:
			continue
		}
		p.giveBackLocked(s, reason)
		if s.ticket {
			p.lookAgain()
		}
	}
}

// giveBackLocked ends a session. The server is told, unless it knows.
func (p *Pool) giveBackLocked(s *session, reason wire.Reason) {
	if !s.ended && !s.ticket {
		p.Server.Done(s.info.ID, reason)
	}
	s.ended = true
	s.stop()
	close(s.gone)
	delete(p.sessions, s.info.ID)
	s.peer.sessions = slices.DeleteFunc(s.peer.sessions, func(o *session) bool { return o == s })
	p.tidyLocked(s.peer)
}
