package path

import (
	"math/rand/v2"
	"time"

	"github.com/netport/netport/proto/leg"
)

const (
	// grace is how much longer than the other portal one waits when it is the
	// other's turn to ask.
	grace = 3 * time.Second
	// firstTries are so near each other that neither network can have been opened
	// from inside meanwhile: who is answered by then has found the way open.
	firstTries = 2
	// maxTries is after how many unanswered ones it is left to the next silence.
	maxTries = 14
	// minAnswer is how long an answer is waited for at least, and laterTry how far
	// apart the tries after the first ones are.
	minAnswer = 500 * time.Millisecond
	laterTry  = time.Second
)

// silence watches one UDP leg over which a QUIC connection runs, without clock
// or socket: when nothing has come for the interval it asks the other portal
// whether the way is open (leg.Echo). That holds it open, both ways, and shows
// how long a silence the networks on it survive.
//
// Who asks opens its own NAT by that, and finds out about the other's alone. So
// the two take turns, and tell each other:
//
//	quiet ---- interval is over, own turn ----> asking
//	  ^                                            |
//	  |   answered by the first tries: both        |
//	  |   networks have held the silence           |
//	  +<-------------------------------------------+
//	  |   heard again only after the leg was bound |
//	  |   anew, at another address: this network   |
//	  |   has not; else the other's has not, which |
//	  |   it is told                               |
//	  +<-------------------------------------------+
//
// What is sent into the silence voids the finding: then it was no silence.
type silence struct {
	mine   bool          // it is this side's turn
	theirs time.Duration // the other's interval; 0: not heard yet
	tell   time.Duration // a silence that the other's network has not held, until an answer comes
	told   uint64        // token of the last Echo that told us of one
	rtt    time.Duration // of the last answer
	since  time.Time     // of the last Echo, or round that was given up

	asking bool
	token  uint64
	tries  int
	began  time.Time
	due    time.Time     // of the next try
	quiet  time.Duration // how long it had been
	void   bool
	moved  bool // the leg was bound at another address since
}

// finding is what a silence has shown about this portal's network: one that it
// held, or lost. Both are 0 where nothing was shown.
type finding struct{ held, lost time.Duration }

// action is what is to be done now.
type action uint8

const (
	rest   action = iota
	ask           // send an Echo
	rebind        // bind the leg anew, and send an Echo
)

// newSilence returns the silence of a leg; the TLS client has the first turn.
func newSilence(client bool, now time.Time) silence { return silence{mine: client, since: now} }

// wait is how long nothing may come.
func (s *silence) wait(own time.Duration) time.Duration {
	t := own
	if s.theirs > 0 {
		t = min(t, s.theirs)
	}
	switch {
	case s.tell > 0:
		t = min(t, time.Second) // the other network is open now
	case !s.mine:
		t += min(t/2, grace)
	}
	return t
}

// step says what to do and when to call again. heard and sent are the times of
// the last packets of QUIC, own is the interval of this portal's network.
func (s *silence) step(now, heard, sent time.Time, own time.Duration) (do action, again time.Time, f finding) {
	last := later(heard, s.since)
	if s.asking && last.After(s.began) {
		f = s.end(false)
	}
	if !s.asking {
		due := last.Add(s.wait(own))
		if now.Before(due) {
			return rest, due, f
		}
		s.asking, s.tries, s.began = true, 0, now
		s.quiet = now.Sub(last)
		s.void, s.moved = sent.Sub(last) > time.Second, false
		s.token = rand.Uint64()
		s.due = now
	}
	if now.Before(s.due) {
		return rest, s.due, f
	}
	s.tries++
	switch {
	case s.tries > maxTries: // the other portal is gone, or the network; others notice that
		s.asking, s.since = false, now
		return rest, now.Add(s.wait(own)), f
	case s.tries < firstTries:
		s.due = now.Add(max(minAnswer, 2*s.rtt))
	default:
		s.due = now.Add(laterTry)
	}
	if s.tries == firstTries+1 {
		return rebind, s.due, f
	}
	return ask, s.due, f
}

// echo is what to send when asking.
func (s *silence) echo(own time.Duration) leg.Echo {
	return leg.Echo{Token: s.token, Interval: own, Lost: s.tell}
}

// take takes an Echo of the other portal.
func (s *silence) take(e leg.Echo, now time.Time) (f finding) {
	s.theirs = max(e.Interval, steps[0])
	if !e.Answer {
		if s.asking && s.tries > firstTries {
			f = s.end(false)
		}
		s.mine, s.since = true, now
		if e.Lost > 0 && e.Token != s.told {
			s.told, f.lost = e.Token, e.Lost
		}
		return f
	}
	if !s.asking || e.Token != s.token {
		return f
	}
	s.tell = 0
	if s.tries == 1 {
		s.rtt = now.Sub(s.began)
	}
	f = s.end(true)
	s.since = now
	return f
}

// end ends a round: something was heard.
func (s *silence) end(answered bool) (f finding) {
	s.asking, s.mine = false, false
	switch {
	case s.void:
	case s.tries <= firstTries && answered:
		f.held = s.quiet
	case s.tries <= firstTries: // the other portal spoke by itself, and so opened its network
	case s.moved:
		f.lost = s.quiet
	default:
		s.tell = s.quiet
	}
	return f
}

// bound tells that the leg was bound anew, and whether at another address.
func (s *silence) bound(moved bool) { s.moved = s.moved || moved }

// disturb tells that this portal's network has changed, so that a silence shows
// nothing.
func (s *silence) disturb(now time.Time) {
	s.void = true
	if !s.asking {
		s.since = now
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
