package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/wire"
)

const (
	// tryTime is how long new sessions are asked for until a tunnel is up; a
	// last one may take the time of its handshake beyond that. It is more than
	// the 10 s of a handshake that nothing answers, so that whoever waits gets a
	// tunnel by the next way to the relay.
	tryTime = 11 * time.Second
	// graceTime is how long the sessions that a tunnel had are tried alone,
	// before the server is asked for another: the relay may only have lost
	// the connections.
	graceTime = 300 * time.Millisecond
	// A lost tunnel waits for the first carrier of a new session before another
	// relay is asked for: leastPatience, and as long as twice what it took the
	// last time with that peer, on a path where everything takes long. Whoever
	// has no tunnel to lose gives it mostPatience.
	leastPatience = 4 * time.Second
	mostPatience  = 10 * time.Second
	// answerTime is how long the server has to answer before tickets are used, and
	// comeTime how long the first carrier of a session then has where a tunnel is
	// lost: the other portal may have lost the server too, which may not know yet.
	answerTime = time.Second
	comeTime   = 500 * time.Millisecond
	// meetTime is how long whoever waits for a tunnel waits for the other portal
	// to come to the relay of a ticket. Portals come after awayTime; later they
	// still meet, for the next who wants a tunnel.
	meetTime = 1800 * time.Millisecond
	// foundPause bounds the pause after a round that has found a way, which may be
	// lost at once.
	foundPause = time.Second
	// uneasyTime is how often a tunnel is looked at of which some carriers do not
	// answer.
	uneasyTime = 250 * time.Millisecond
	// maxSparePause bounds the pause between attempts to have a carrier by a relay in
	// reserve, beside direct ones.
	maxSparePause = time.Minute
	// calmTime is how long after a search the next one begins afresh.
	calmTime = 15 * time.Second
)

// search looks for a tunnel to a peer, or for a way back for the tunnels that
// have lost theirs: round after round, with pauses that grow, as long as
// somebody waits for it or something is open in such a tunnel. There is one
// for a peer at most.
type search struct {
	nudge chan struct{} // capacity 1: something has changed
}

func (s *search) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// pace spreads the rounds of a peer's searches, also over several of them: who
// finds carriers that die at once must not ask for ever more.
type pace struct {
	pause time.Duration
	next  time.Time // when the next round may begin
}

// searchLocked begins a search, or tells the one under way to look again.
func (p *Pool) searchLocked(pr *peer) {
	if pr.search != nil {
		pr.search.wake()
		return
	}
	if p.closed {
		return
	}
	pr.search = &search{nudge: make(chan struct{}, 1)}
	p.tasks.Go(func() { p.run(pr, pr.search) })
}

// goOn has all searches go on, but not all in one moment.
func (p *Pool) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	spread := min(time.Duration(len(p.peers))*spreadEach, maxPause)
	for _, pr := range p.peers {
		if pr.search != nil {
			pr.pace = pace{next: time.Now().Add(rand.N(spread + 1))}
			pr.search.wake()
		}
	}
}

// heard takes that a relay has answered. Who hears of it holds locks, so the searches are told by
// keepSearches.
func (p *Pool) heard(relay string) {
	if !p.tries.heard(relay) {
		return
	}
	select {
	case p.back <- struct{}{}:
	default:
	}
}

// keepSearches has the searches go on when a relay is back.
func (p *Pool) keepSearches() {
	for {
		select {
		case <-p.back:
			p.goOn()
		case <-p.tasks.ctx.Done():
			return
		}
	}
}

// run serves a search until nothing is looked for any more.
func (p *Pool) run(pr *peer, s *search) {
	for {
		wait, wanted := p.rest(pr, s)
		switch {
		case !wanted:
			return
		case wait > 0:
			s.sleep(p.tasks.ctx, wait)
			continue
		}
		spare := p.isSpare(pr)
		err := p.round(pr, s)
		p.rounded(pr, err, spare)
	}
}

// sleep waits for d, or until something has changed.
func (s *search) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.nudge:
	case <-ctx.Done():
	}
}

// rest returns how long to wait for the next round, and whether there is to be
// one; if not, the search is over.
func (p *Pool) rest(pr *peer, s *search) (wait time.Duration, wanted bool) {
	for {
		lost, uneasy := p.lost(pr)
		bare := p.bare(pr)
		p.mu.Lock()
		a := pr.attempt
		waiting := a != nil && a.over.IsZero()
		switch {
		case p.tasks.ctx.Err() != nil:
			if waiting {
				a.fail(&Unavailable{Reason: wire.ReasonShutdown})
			}
		case waiting || len(lost) > 0:
			if time.Since(pr.pace.next) > calmTime {
				pr.pace = pace{}
			}
			defer p.mu.Unlock()
			return time.Until(pr.pace.next), true
		case bare:
			defer p.mu.Unlock()
			wait := time.Until(pr.spare.next)
			if uneasy {
				wait = min(wait, uneasyTime)
			}
			return wait, true
		case uneasy:
			defer p.mu.Unlock()
			return uneasyTime, true
		case len(s.nudge) > 0:
			<-s.nudge
			p.mu.Unlock()
			continue
		}
		pr.search, pr.meet = nil, false
		for _, o := range slices.Clone(pr.sessions) {
			if len(o.carriers)+o.attempts+o.further == 0 { // nothing is open that it could be needed for
				p.giveBackLocked(o, wire.ReasonCarrierLost)
			}
		}
		p.tidyLocked(pr)
		p.mu.Unlock()
		p.lookAgain()
		return 0, false
	}
}

// lost returns the tunnels that have something open and no carrier that answers
// and may stay. It also reports whether there is another in trouble: one of which
// other carriers may follow those that do not answer, or in which something may
// be opened.
func (p *Pool) lost(pr *peer) (list []*member, uneasy bool) {
	p.mu.Lock()
	tunnels := slices.Clone(pr.tunnels)
	troubled := make(map[*member]bool)
	for _, m := range tunnels {
		troubled[m] = !m.trouble.IsZero() && pr.carriersLocked(m) > 0
	}
	p.mu.Unlock()
	for _, m := range tunnels {
		switch {
		case m.over():
		case m.busy() && !p.answering(m):
			list = append(list, m)
		case troubled[m]:
			uneasy = true
		}
	}
	return list, uneasy
}

// bare reports whether there is a tunnel that has something open, and direct carriers
// alone: where they die it should not have to look for a relay first.
func (p *Pool) bare(pr *peer) bool {
	p.mu.Lock()
	var list []*member
	for _, m := range pr.tunnels {
		if pr.carriersLocked(m) > 0 && pr.relayedLocked(m) == 0 {
			list = append(list, m)
		}
	}
	p.mu.Unlock()
	return slices.ContainsFunc(list, func(m *member) bool { return !m.over() && m.busy() })
}

// isSpare reports whether what is looked for is a relay in reserve alone.
func (p *Pool) isSpare(pr *peer) bool {
	lost, _ := p.lost(pr)
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(lost) == 0 && (pr.attempt == nil || !pr.attempt.over.IsZero())
}

// found reports whether what the search looks for is there.
func (p *Pool) found(pr *peer) bool {
	if lost, _ := p.lost(pr); len(lost) > 0 || p.bare(pr) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return pr.attempt == nil || !pr.attempt.over.IsZero()
}

// rounded ends a round that had that outcome: it sets the pause, and tells who
// waits if there is no sense in waiting.
func (p *Pool) rounded(pr *peer, err error, spare bool) {
	lost, _ := p.lost(pr)
	tickets := err != nil && len(p.Tickets.For(pr.name)) > 0
	p.mu.Lock()
	defer p.mu.Unlock()
	if spare {
		pr.spare.pause = min(max(2*pr.spare.pause, firstPause), maxSparePause)
		pr.spare.next = time.Now().Add(jitter(pr.spare.pause))
		return
	}
	pr.pace.pause = min(max(2*pr.pace.pause, firstPause), maxPause)
	if err == nil {
		pr.pace.pause = min(pr.pace.pause, foundPause)
	}
	pr.pace.next = time.Now().Add(jitter(pr.pace.pause))
	a := pr.attempt
	if err == nil || a == nil || !a.over.IsZero() || len(lost) > 0 {
		return
	}
	var refused *control.Refused
	var none *Unavailable
	waited := time.Since(a.began)
	switch {
	case errors.As(err, &none):
	case errors.As(err, &refused) && refused.Reason == wire.ReasonServerGone && tickets && waited < meetTime:
		// The other portal may come to the relay of a ticket.
		if late := a.began.Add(meetTime); late.Before(pr.pace.next) {
			pr.pace.next = late
		}
	case refused != nil && (waited > tryTime || !again(refused.Reason)):
		none = &Unavailable{refused.Reason, refused.Text}
	case refused == nil && waited > tryTime:
		none = &Unavailable{wire.ReasonCarrierLost, err.Error()}
	}
	if none != nil {
		a.fail(none)
		pr.pace = pace{} // who comes next has an answer as soon; failedTime bounds how often
	}
}

// fail ends an attempt for all who wait for it.
func (a *attempt) fail(err *Unavailable) {
	a.err, a.over = err, time.Now()
	close(a.done)
}

// again reports whether a refusal may be over in a moment.
func again(r wire.Reason) bool {
	return r == wire.ReasonReplaced || r == wire.ReasonRelayRefused || r == wire.ReasonTimeout
}

// round tries every way once: the sessions there are, then a new one, and
// tickets if the server does not help. It returns nil if what was looked for is
// there.
func (p *Pool) round(pr *peer, s *search) error {
	lost, _ := p.lost(pr)
	p.mu.Lock()
	var joining *session
	shared := false
	for _, o := range pr.sessions {
		if !o.ticket && !o.ended && o.joining() && time.Since(o.since) < pr.patienceLocked(len(lost) > 0) {
			joining = o
		}
		for m := range o.carriers {
			shared = shared || !o.ended && !slices.Contains(lost, m)
		}
		if len(pr.tunnels) > 0 {
			o.againLocked()
		}
	}
	p.mu.Unlock()
	switch {
	case joining != nil:
		return p.await(pr, s, joining, len(lost) > 0)
	case len(lost) > 0 && shared: // another session would take the place of the one that carries
		if p.waitUntil(pr, s, againTime, p.hopeless) {
			return nil
		}
		return errors.New("the tunnel found no way back beside another")
	case len(lost) > 0 && p.waitUntil(pr, s, graceTime, p.hopeless):
		return nil
	}
	return p.ask(pr, s, len(lost) > 0)
}

// joining reports whether it is not yet clear whether a first carrier comes up.
func (s *session) joining() bool {
	select {
	case <-s.joined:
		return false
	default:
		return true
	}
}

// hopeless reports whether a relay has refused, and there is no other session in
// which a carrier may come up.
func (p *Pool) hopeless(pr *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	refused := false
	for _, s := range pr.sessions {
		if s.attempts > 0 && !s.refused && !s.ended {
			return false
		}
		refused = refused || s.refused
	}
	return refused
}

// waitUntil waits for d at most, or until stop says so, and reports whether
// what is looked for is there.
func (p *Pool) waitUntil(pr *peer, s *search, d time.Duration, stop func(*peer) bool) bool {
	deadline := time.Now().Add(d)
	for {
		switch left := time.Until(deadline); {
		case p.found(pr):
			return true
		case left <= 0 || p.tasks.ctx.Err() != nil || stop(pr):
			return false
		default:
			s.sleep(p.tasks.ctx, left)
		}
	}
}

// patienceLocked is how long the first carrier of a session is waited for.
func (pr *peer) patienceLocked(lost bool) time.Duration {
	if !lost {
		return mostPatience
	}
	return min(leastPatience+2*pr.took, mostPatience)
}

// await waits for the first carrier of a session.
func (p *Pool) await(pr *peer, s *search, o *session, lost bool) error {
	p.mu.Lock()
	patience := pr.patienceLocked(lost)
	p.mu.Unlock()
	came := func(*peer) bool { return !o.joining() }
	if lost && o.joining() {
		if p.waitUntil(pr, s, comeTime-time.Since(o.since), came) {
			return nil
		}
		p.useTickets(pr)
	}
	if p.waitUntil(pr, s, patience-time.Since(o.since), came) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.ended {
		return errors.New("the server has ended the session")
	}
	pr.lost = o.leg.Relay()
	if o.joining() {
		return fmt.Errorf("no carrier came up within %v", patience)
	}
	if o.err == nil { // its carrier is lost already, or belongs to another tunnel
		return errors.New("the tunnel was closed")
	}
	return o.err
}

// answer is what the server says to a request.
type answer struct {
	session wire.Session
	err     error
}

// ask asks the server for a session and waits for its first carrier.
func (p *Pool) ask(pr *peer, s *search, lost bool) error {
	id, joined := p.Joined(pr.name)
	p.mu.Lock()
	relay := pr.lost
	if lost {
		relay = pr.relayLocked()
	}
	if !joined && pr.attempt != nil {
		id, joined = pr.attempt.grant, true // the server may know better
	}
	p.mu.Unlock()
	if !joined {
		return &Unavailable{Reason: wire.ReasonNotGranted, Detail: "no grant joins the two any more"}
	}
	ctx, cancel := context.WithCancel(p.tasks.ctx)
	answers := make(chan answer, 1)
	p.tasks.Go(func() {
		session, err := p.Server.OpenSession(ctx, pr.name, id, path.Transports, relay)
		answers <- answer{session, err}
		s.wake()
	})
	defer cancel()
	answered := func(*peer) bool { return len(answers) > 0 }
	if p.waitUntil(pr, s, answerTime, answered) {
		return nil
	}
	if !answered(pr) {
		p.useTickets(pr)
		if p.waitUntil(pr, s, mostPatience, answered) {
			return nil
		}
	}
	var a answer
	select {
	case a = <-answers:
	case <-p.tasks.ctx.Done():
		return context.Cause(p.tasks.ctx)
	}
	if a.err != nil {
		var refused *control.Refused
		if lost || errors.As(a.err, &refused) && refused.Reason == wire.ReasonServerGone {
			p.useTickets(pr)
		}
		return a.err
	}
	p.mu.Lock()
	o := p.sessions[a.session.ID]
	p.mu.Unlock()
	if o == nil {
		if leg, err := p.Finder.Leg(a.session, p.Server.Server().Addr()); err != nil {
			return &Unavailable{wire.ReasonForbidden, err.Error()}
		} else {
			leg.Close()
		}
		return errors.New("the session was over before it began")
	}
	return p.await(pr, s, o, lost)
}

// relayLocked returns the relay at which the tunnels were last, unless the server
// has ended that session itself.
func (pr *peer) relayLocked() string {
	for _, s := range slices.Backward(pr.sessions) {
		if !s.joining() && !s.ended {
			return s.leg.Relay()
		}
	}
	return pr.lost
}
