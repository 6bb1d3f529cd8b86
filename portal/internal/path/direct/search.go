package direct

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxHeard bounds the addresses that the peer has not named and that probes of it
	// have come from.
	maxHeard = 16
	// perSecond is how many probes go to one address in a second at most.
	perSecond = 5
	// rested is when a search that slows down begins anew for what may have changed.
	rested = 5 * time.Second
	// freshTime is how long after an answer a way is taken for open.
	freshTime = 5 * time.Second
	// dialPause is how long an address over which no connection came up is left alone,
	// the first time, and maxDialPause what that grows to.
	dialPause    = 10 * time.Second
	maxDialPause = 10 * time.Minute
	// starvedPause is when an address is looked at again for which nothing is left to be sent.
	starvedPause = 5 * time.Minute
	// apart is how soon after a probe to an address the next one may follow because of a
	// probe from there.
	apart = 2 * time.Millisecond
)

// pauses are those between the probes to an address that does not answer; the last one
// for ever. The first five are as near to each other as perSecond allows, since it takes
// two at the same time to open two NATs; but not all at once, since a portal may hear
// of the other's addresses a little later.
var pauses = [...]time.Duration{
	40 * time.Millisecond, 100 * time.Millisecond, 260 * time.Millisecond, 600 * time.Millisecond,
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute,
}

// carriedPause takes the place of the last pause while something direct carries: nothing
// but a quicker way would be news then.
const carriedPause = time.Hour

// burst is how many of the pauses are of the quick beginning.
const burst = 5

// search decides what to send where, for one tunnel, without clock or socket: it asks
// all addresses that the peer has named, and those from which probes of it have come.
//
//	named, or heard from --> asking, ever more slowly --answered--> open
//	                           ^                                     |
//	                           +-- another network, list, loss ------+
type search struct {
	client  bool // dials; the other expects connections where it has asked itself
	carried bool // something direct carries
	bounds  bounds
	quota   *quota
	pairs   []*pair
}

// pair is an address of the peer.
type pair struct {
	addr   netip.AddrPort
	origin wire.CandidateOrigin // 0: a probe has come from there
	listed bool                 // in the peer's last list

	tries  int       // since the search began anew
	began  time.Time // when it did
	due    time.Time // of the next
	last   time.Time // when it was asked last
	sent   [perSecond]question
	next   int // place in sent
	asked  int
	starve bool // nothing is left to be sent there

	answered time.Time // last; zero: never
	answers  int
	heard    time.Time // when a probe of the peer has come from there; zero: never
	rtt      time.Duration
	seen     netip.AddrPort // where the peer saw this portal

	failed int       // how often in a row no connection came up
	until  time.Time // when to dial again
	way    *link     // what is open there; nil: nothing
}

// question is a probe that asks.
type question struct {
	token uint64
	at    time.Time
}

// order is one probe to be sent.
type order struct {
	to    netip.AddrPort
	token uint64
}

func (s *search) find(a netip.AddrPort) *pair {
	if i := slices.IndexFunc(s.pairs, func(p *pair) bool { return p.addr == a }); i >= 0 {
		return s.pairs[i]
	}
	return nil
}

// list takes the peer's candidates and returns why some of them are not probed.
func (s *search) list(list []wire.Candidate, now time.Time) (refused []Refusal) {
	for _, p := range s.pairs {
		p.listed = false
	}
	for _, c := range list[:min(len(list), wire.MaxCandidates)] {
		if c.Transport != wire.CandidateUDP {
			continue
		}
		c.Addr = netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())
		if why := s.bounds.refuses(c.Addr); why != "" {
			refused = append(refused, Refusal{c, why})
			continue
		}
		p := s.find(c.Addr)
		if p == nil {
			p = &pair{addr: c.Addr, began: now, due: now}
			s.pairs = append(s.pairs, p)
		}
		p.listed, p.origin = true, c.Origin
		s.anew(p, now)
	}
	s.pairs = slices.DeleteFunc(s.pairs, func(p *pair) bool { return !p.listed && p.heard.IsZero() && p.way == nil })
	return refused
}

// anew has an address asked at once, unless that is under way.
func (s *search) anew(p *pair, now time.Time) {
	if p.tries < burst || now.Sub(p.last) < rested && p.tries < burst+2 {
		return
	}
	p.restart(now)
}

func (p *pair) restart(now time.Time) { p.tries, p.began, p.due, p.starve = 0, now, now, false }

// restart has all addresses asked at once, those in use too: this portal's network may
// have changed.
func (s *search) restart(now time.Time) {
	for _, p := range s.pairs {
		p.restart(now)
	}
}

// carry takes whether something direct carries.
func (s *search) carry(carried bool, now time.Time) {
	lost := s.carried && !carried
	if s.carried = carried; !lost {
		return
	}
	s.lost(now)
	for _, p := range s.pairs {
		p.due = earlier(p.due, now.Add(s.pause(p))) // carriedPause is over
	}
}

// lost has what has answered before asked at once, what is in use too: a way that was used is gone or silent. What has
// never answered is not, since each loss would take from the quota.
func (s *search) lost(now time.Time) {
	for _, p := range s.pairs {
		if p.answers > 0 {
			p.restart(now)
		}
	}
}

// ask takes that a probe of the peer has come, and reports whether it is to be answered.
func (s *search) ask(from netip.AddrPort, now time.Time) (answer bool) {
	if s.bounds.refuses(from) != "" {
		return false
	}
	p := s.find(from)
	if p == nil {
		if p = s.stranger(from, now); p == nil {
			return true
		}
	}
	p.heard = now
	// The peer can reach this portal from there: the other direction is tried while
	// NATs remember it.
	if !p.open(now) || p.way == nil && !s.client {
		p.due = earlier(p.due, later(now, p.last.Add(apart)))
	}
	return true
}

// stranger adds an address that the peer has not named. nil: there are too many.
func (s *search) stranger(from netip.AddrPort, now time.Time) *pair {
	var oldest *pair
	n := 0
	for _, p := range s.pairs {
		if p.listed {
			continue
		}
		n++
		if p.way == nil && (oldest == nil || p.heard.Before(oldest.heard)) {
			oldest = p
		}
	}
	if n >= maxHeard {
		if oldest == nil || now.Sub(oldest.heard) < rested {
			return nil
		}
		s.pairs = slices.DeleteFunc(s.pairs, func(p *pair) bool { return p == oldest })
	}
	p := &pair{addr: from, began: now, due: now}
	s.pairs = append(s.pairs, p)
	return p
}

// answer takes an answer with that token and returns the pair that it proves; nil: it
// answers nothing that was asked there.
func (s *search) answer(from netip.AddrPort, token uint64, seen netip.AddrPort, now time.Time) *pair {
	p := s.find(from)
	if p == nil {
		return nil
	}
	i := slices.IndexFunc(p.sent[:], func(q question) bool { return q.token == token && !q.at.IsZero() })
	if i < 0 {
		return nil
	}
	rtt := now.Sub(p.sent[i].at)
	p.sent[i].at = time.Time{} // answered once
	if p.rtt == 0 || rtt < p.rtt {
		p.rtt = rtt
	} else {
		p.rtt += (rtt - p.rtt) / 8
	}
	p.answered, p.seen, p.starve = now, seen, false
	p.answers++
	s.quota.answered(from, now)
	p.tries = max(p.tries, burst)
	p.due = later(p.due, now.Add(s.pause(p)))
	return p
}

// pause is that until the next probe to an address.
func (s *search) pause(p *pair) time.Duration {
	if p.tries >= len(pauses)-1 && s.carried {
		return carriedPause
	}
	return pauses[min(p.tries, len(pauses)-1)]
}

// step returns what to send now, and when to call again.
func (s *search) step(now time.Time) (out []order, again time.Time) {
	again = now.Add(pauses[len(pauses)-1])
	for _, p := range s.pairs {
		if p.held() {
			continue
		}
		if o, ok := s.probe(p, now); ok {
			out = append(out, o)
		}
		again = earlier(again, p.due)
	}
	return out, again
}

// probe returns the probe to an address, if it is due.
func (s *search) probe(p *pair, now time.Time) (order, bool) {
	if now.Before(p.due) || p.held() {
		return order{}, false
	}
	if oldest := p.sent[p.next]; now.Sub(oldest.at) < time.Second {
		p.due = oldest.at.Add(time.Second)
		return order{}, false
	}
	if p.starve = p.answers == 0 && !s.quota.spend(p.addr, now); p.starve {
		p.due = now.Add(starvedPause)
		return order{}, false
	}
	p.due = now.Add(s.pause(p))
	p.tries++
	return order{p.addr, p.question(now)}, true
}

// question notes that the address is asked.
func (p *pair) question(now time.Time) (token uint64) {
	token = rand.Uint64()
	p.note(token, now)
	return token
}

func (p *pair) note(token uint64, now time.Time) {
	p.sent[p.next] = question{token, now}
	p.next = (p.next + 1) % perSecond
	p.last = now
	p.asked++
}

// open reports whether the address has answered a moment ago.
func (p *pair) open(now time.Time) bool {
	return !p.answered.IsZero() && now.Sub(p.answered) < freshTime
}

// carries reports whether connections run over the address.
func (p *pair) carries() bool { return p.way != nil && p.way.carries() }

// held reports whether an address is in use, and so held open and asked otherwise.
func (p *pair) held() bool { return p.carries() && p.tries >= burst }

// doubted is how many probes may get lost on a way in use before it is taken for dead.
const doubted = 3

// dead reports whether an address in use has not answered when everything was asked anew.
func (p *pair) dead() bool { return p.tries >= doubted && p.answered.Before(p.began) }

// best returns the open pair to dial: the quickest, if nothing is open or it is clearly
// quicker. nil: there is none.
func (s *search) best(now time.Time) *pair {
	var best, used *pair
	for _, p := range s.pairs {
		switch {
		case p.carries() && p.dead():
		case p.carries():
			if used == nil || p.rtt < used.rtt {
				used = p
			}
		case !p.open(now) || now.Before(p.until):
		case best == nil || p.rtt < best.rtt:
			best = p
		}
	}
	if best != nil && used != nil && !(best.rtt < used.rtt*7/10 && used.rtt-best.rtt > 2*time.Millisecond) {
		return nil
	}
	return best
}

// fail notes that no connection came up over an address.
func (p *pair) fail(now time.Time) {
	p.until = now.Add(min(dialPause<<min(p.failed, 8), maxDialPause))
	p.failed++
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
