package peers

import (
	"context"
	"encoding/hex"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

const (
	// awayTime is how long the server is away before portals wait for each other
	// at the relays of their tickets: so short that who wants a tunnel in that
	// moment has one within meetTime.
	awayTime = time.Second
	// maxWaits bounds the peers that are waited for at once.
	maxWaits = 64
	// maxRelays bounds the relays at which one peer is waited for.
	maxRelays = 4
	// waitTime is how long one wait lasts; a relay keeps a leg for 30 s. It is
	// drawn between half and all of it.
	waitTime = 28 * time.Second
	// ticketTime is how often tickets are looked at while they are in use: they
	// end, new ones may come, and so may grants.
	ticketTime = 5 * time.Second
	// checkTime is how often, while the server is away, tunnels in which something is
	// open are asked whether the peer hears: it may be gone from where it was, and
	// nobody else would tell.
	checkTime = 15 * time.Second
	// turnTime is how long each has of more peers than are waited for at once. It
	// is enough to find one that waits itself.
	turnTime = 3 * time.Second
	// crossTime is how long after a tunnel has come up the waits for the same peer
	// at other relays go on: the two portals may be meeting there too, and if each
	// called off what the other has, none would be left.
	crossTime = 2 * time.Second
	// spreadEach is the time that each of many searches adds to the moment in
	// which they all go on.
	spreadEach = 5 * time.Millisecond
)

// Connected takes that the connection to the server was made or lost. The
// searches that wait for it go on at once, but not all in one moment. It
// implements control.Sessions.
func (p *Pool) Connected(connected bool) {
	if connected {
		p.goOn()
	}
	p.lookAgain()
}

// PeerChanged takes that another portal has lost its connection to the server,
// or made it again: its program may have ended. The tunnels with it are asked
// whether they live. It implements control.Sessions.
func (p *Pool) PeerChanged(name string) {
	p.mu.Lock()
	var list []*member
	if pr := p.peers[name]; pr != nil {
		list = slices.Clone(pr.tunnels)
	}
	p.mu.Unlock()
	check(list)
}

// check asks on every carrier of the tunnels whether the peer answers.
func check(list []*member) {
	for _, m := range list {
		m.tunnel.Check()
	}
}

// checkBusy checks the tunnels in which something is open. Who opens something in
// another finds out by that.
func (p *Pool) checkBusy() {
	check(slices.DeleteFunc(p.members(), func(m *member) bool { return !m.busy() }))
}

// lookAgain has the tickets looked at.
func (p *Pool) lookAgain() {
	select {
	case p.look <- struct{}{}:
	default:
	}
}

// useTickets has tickets used for a peer while its search lasts.
func (p *Pool) useTickets(pr *peer) {
	p.mu.Lock()
	pr.meet = true
	p.mu.Unlock()
	p.lookAgain()
}

// keepTickets keeps this portal waiting at the relays of tickets as long as it
// should: for all peers with which it is joined and has no carrier while the
// server is away, and for those that a search has not found by the server.
func (p *Pool) keepTickets() {
	timer := time.NewTimer(awayTime)
	defer timer.Stop()
	var checked time.Time
	for turns := 0; ; {
		select {
		case <-timer.C:
		case <-p.look:
		case <-p.tasks.ctx.Done():
			return
		}
		connected, since := p.Server.Connected()
		away := !connected && time.Since(since) >= awayTime
		names := p.absent(away)
		now := turn(names, turns, maxWaits)
		soon := p.waitFor(p.ticketsFor(now), p.neighboursFor(now))
		turns++
		if away && time.Since(checked) >= checkTime {
			checked = time.Now()
			p.checkBusy()
		}
		switch {
		case len(names) > maxWaits:
			timer.Reset(turnTime)
		case soon:
			timer.Reset(crossTime)
		case len(names) > 0 || away:
			timer.Reset(ticketTime)
		case !connected:
			timer.Reset(awayTime - time.Since(since))
		default:
			timer.Stop()
		}
	}
}

// absent returns the peers to wait for at the relays of tickets, in order.
func (p *Pool) absent(away bool) (names []string) {
	p.mu.Lock()
	there := make(map[string]bool)
	for name, pr := range p.peers {
		if pr.meet {
			names = append(names, name)
		}
		there[name] = pr.meet || pr.liveLocked() != nil
	}
	p.mu.Unlock()
	if away {
		for _, name := range append(p.Tickets.Peers(), p.neighbours()...) {
			if !there[name] {
				names = append(names, name)
				there[name] = true
			}
		}
	}
	slices.Sort(names)
	return names
}

// TicketsInUse returns the sessions of the tickets that are in use now, in hexadecimal.
func (p *Pool) TicketsInUse() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []string{}
	for id, s := range p.sessions {
		if s.ticket && !s.lan {
			list = append(list, hex.EncodeToString(id[:]))
		}
	}
	return list
}

// turn returns most of the names, others each time; those that it returns in
// turns are all.
func turn(names []string, number, most int) []string {
	if len(names) <= most {
		return names
	}
	at := number * most % len(names)
	return append(slices.Clone(names[at:]), names[:at]...)[:most]
}

// ticketsFor returns the tickets with these peers that may be used.
func (p *Pool) ticketsFor(names []string) map[wire.SessionID]wire.Ticket {
	wanted := make(map[wire.SessionID]wire.Ticket)
	for _, name := range names {
		if _, joined := p.Joined(name); !joined {
			continue
		}
		list := p.Tickets.For(name)
		sort.Slice(list, func(i, j int) bool { return list[i].Relay.Name < list[j].Relay.Name })
		for _, t := range list[:min(len(list), maxRelays)] {
			if ends, ok := ticket.Ends(t.Session); ok && ends.After(p.Credentials.Now()) && t.Peer == name {
				wanted[t.Session] = t
			}
		}
	}
	return wanted
}

// waitFor begins to wait with the tickets that are not in use yet, and for the neighbours,
// and ends the waits that are not wanted any more, or reports that some are to be ended
// soon.
func (p *Pool) waitFor(wanted map[wire.SessionID]wire.Ticket, near map[wire.SessionID]neighbour) (soon bool) {
	p.mu.Lock()
	for id, s := range p.sessions {
		_, byTicket := wanted[id]
		_, byLAN := near[id]
		if !byTicket && !byLAN && s.ticket && s.joining() {
			if m := s.peer.liveLocked(); m != nil && time.Since(m.since) < crossTime {
				soon = true
			} else {
				s.ended = true
				s.stop()
			}
		}
		delete(wanted, id)
		delete(near, id)
	}
	p.mu.Unlock()
	server := p.Server.Server().Addr()
	for _, t := range wanted {
		log := p.Log.With("peer", t.Peer, "session", t.Session.String())
		l, err := p.Finder.Ticket(t, server)
		if err != nil {
			log.Debug("ticket not used", "relay", t.Relay.Name, "error", err)
			continue
		}
		p.mu.Lock()
		if p.closed || p.sessions[t.Session] != nil || len(p.sessions) >= maxSessions {
			p.mu.Unlock()
			l.Close()
			continue
		}
		info := wire.Session{ID: t.Session, Leg: t.Leg, Secret: t.Secret, Peer: t.Peer, Relay: t.Relay, Transports: t.Transports}
		p.addLocked(p.peerLocked(t.Peer), info, l, log, true)
		p.mu.Unlock()
	}
	for _, n := range near {
		p.meetNear(n)
	}
	return soon
}

// wait waits at the relay of a ticket, or on the local network, until the other portal
// has come, or the wait is not wanted any more.
func (s *session) wait() {
	pause := firstPause
	for s.turn() {
		ctx, restart := context.WithTimeout(s.ctx, jitter(waitTime))
		p, began := s.pool, time.Now()
		p.mu.Lock()
		s.restart = restart
		p.mu.Unlock()
		met, err := s.meetAgain(ctx)
		restart()
		if err == nil {
			err = s.attach(met)
		}
		if err == nil {
			break
		}
		s.log.Debug("the peer did not come", "relay", s.leg.Relay(), "error", err)
		if time.Since(began) > maxPause { // the relay was there
			pause = firstPause
			continue
		}
		sleep(s.ctx, jitter(pause))
		pause = min(2*pause, maxPause)
	}
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s.err = context.Cause(s.ctx)
	s.restart = nil
	s.attempts--
	close(s.joined)
	p.settleLocked(s.peer)
}

// turn waits for the relay's turn, and reports false if the wait is not wanted any
// more. The local network has none.
func (s *session) turn() bool {
	return s.ctx.Err() == nil && (s.lan || s.pool.tries.wait(s.ctx, s.leg.Relay()) == nil)
}

// wake has a wait begun anew: the network has changed. It is called with the
// Pool's lock held.
func (s *session) wake() {
	if s.restart != nil {
		s.leg.Refresh()
		s.restart()
	}
}
