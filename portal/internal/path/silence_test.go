package path

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
)

// net2 is two portals whose QUIC connection is silent, each behind a NAT that
// forgets it after a while. Time is the test's; a packet takes no time.
type net2 struct {
	now   time.Time
	sides [2]*side
}

type side struct {
	hold    time.Duration // of the NAT; 0: for ever
	later   time.Duration // of a flow that is older than hold; 0: the same
	another bool          // the NAT gives another port after it has forgotten
	down    bool          // nothing passes

	used    time.Time // the NAT's last packet, either way
	made    time.Time // its flow's first
	known   bool      // the relay knows the port
	lost    int       // packets that did not get in
	silence silence
	memory  hold
	next    time.Time
	heard   time.Time // QUIC's
	sent    time.Time
	echoes  int
}

func newNet2(a, b side) *net2 {
	n := &net2{now: time.Unix(1_000_000, 0)}
	for i, s := range []side{a, b} {
		s.used, s.made, s.heard, s.sent, s.next, s.known = n.now, n.now, n.now, n.now, n.now, true
		s.silence = newSilence(i == 0, n.now)
		n.sides[i] = &s
	}
	return n
}

// open reports whether the NAT still knows its portal.
func (s *side) open(now time.Time) bool {
	hold := s.hold
	if s.later > 0 && s.used.Sub(s.made) > s.hold {
		hold = s.later
	}
	return hold == 0 || now.Sub(s.used) < hold
}

// out has a packet leave the NAT; it gets on if the relay knows the port.
func (s *side) out(now time.Time) bool {
	if s.down {
		return false
	}
	if !s.open(now) {
		s.made = now
		s.known = s.known && !s.another
	}
	s.used = now
	return s.known
}

func (s *side) in(now time.Time) bool {
	if s.down || !s.known || !s.open(now) {
		s.lost++
		return false
	}
	s.used = now
	return true
}

// pass reports whether a packet of side i reaches the other.
func (n *net2) pass(i int) bool { return n.sides[i].out(n.now) && n.sides[1-i].in(n.now) }

func (n *net2) learn(s *side, f finding) {
	if f.held > 0 {
		s.memory = s.memory.survived(f.held, n.now)
	}
	if f.lost > 0 {
		s.memory = s.memory.lost(f.lost, n.now)
	}
}

// run has time pass.
func (n *net2) run(d time.Duration) {
	for end := n.now.Add(d); ; {
		i := 0
		if n.sides[1].next.Before(n.sides[0].next) {
			i = 1
		}
		s := n.sides[i]
		if s.next.After(end) {
			n.now = end
			return
		}
		n.now = later(n.now, s.next)
		n.step(i)
	}
}

func (n *net2) step(i int) {
	s, other := n.sides[i], n.sides[1-i]
	do, next, f := s.silence.step(n.now, s.heard, s.sent, s.memory.interval())
	s.next = next
	n.learn(s, f)
	if do == rest {
		return
	}
	if do == rebind && !s.down {
		s.silence.bound(!s.known)
		s.known, s.used = true, n.now
	}
	s.echoes++
	e := s.silence.echo(s.memory.interval())
	if !n.pass(i) {
		return
	}
	n.learn(other, other.silence.take(e, n.now))
	other.next = n.now
	if n.pass(1 - i) {
		n.learn(s, s.silence.take(leg.Echo{Answer: true, Token: e.Token, Interval: other.memory.interval()}, n.now))
		s.next = n.now
	}
}

// interval is how long both portals leave the way silent.
func (n *net2) interval() time.Duration {
	return min(n.sides[0].memory.interval(), n.sides[1].memory.interval())
}

func TestIntervalGrowsToWhatTheNATsHold(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b side
		want time.Duration
	}{
		{"no NAT", side{}, side{}, 4 * time.Minute},
		{"30 s on one side, the same port again", side{}, side{hold: 30 * time.Second}, 15 * time.Second},
		{"the client's", side{hold: 30 * time.Second}, side{}, 15 * time.Second},
		{"two minutes and a little, another port", side{hold: 121 * time.Second, another: true}, side{}, 2 * time.Minute},
		{"both, differently", side{hold: 70 * time.Second, another: true}, side{hold: 40 * time.Second}, 30 * time.Second},
		{"2 s, the same port again", side{hold: 2 * time.Second}, side{}, 1500 * time.Millisecond},
		{"2 s, another port", side{}, side{hold: 2 * time.Second, another: true}, 1500 * time.Millisecond},
	} {
		n := newNet2(c.a, c.b)
		n.run(2 * time.Hour)
		got := n.interval()
		if got != c.want {
			t.Errorf("%s: %v, want %v (%+v, %+v)", c.name, got, c.want, n.sides[0].memory, n.sides[1].memory)
		}
		lost := [2]int{n.sides[0].lost, n.sides[1].lost}
		n.run(5 * time.Minute)
		if now := [2]int{n.sides[0].lost, n.sides[1].lost}; now != lost && n.sides[0].memory.again.Sub(n.now) > 0 {
			t.Errorf("%s: packets were shut out in the end: %v, then %v", c.name, lost, now)
		}
	}
}

// F18: conntrack forgets after 2 s, and a flow that has lasted for longer after
// 2 min; the far side speaks first after 5 min of silence.
func TestNATOfTwoSecondsIsLearnedWithinAMinute(t *testing.T) {
	for _, later := range []time.Duration{0, 2 * time.Minute} {
		n := newNet2(side{}, side{hold: 2 * time.Second, later: later})
		n.run(time.Minute)
		if got := n.interval(); got > 1500*time.Millisecond {
			t.Fatalf("after a minute the way is left silent for %v", got)
		}
		n.run(4 * time.Minute)
		if !n.pass(0) {
			t.Error("the far side's first packet was shut out")
		}
		if n := n.sides[1].memory; n.failed == 0 {
			t.Errorf("the network that does not hold does not know it: %+v", n)
		}
		if n := n.sides[0].memory; n.failed != 0 {
			t.Errorf("the network that holds is blamed: %+v", n)
		}
		n.run(2 * time.Hour)
		if got := n.interval(); later > 0 && got != time.Minute || later == 0 && got != 1500*time.Millisecond {
			t.Errorf("in the end the way is left silent for %v", got)
		}
	}
}

func TestNetworkThatIsAwayTeachesNothing(t *testing.T) {
	n := newNet2(side{}, side{})
	n.run(10 * time.Second)
	n.sides[1].down = true
	n.sides[0].sent = n.now.Add(2 * time.Second) // something is sent into the silence
	n.run(16 * time.Second)
	n.sides[1].down = false
	n.sides[1].silence.disturb(n.now) // its leg was bound anew
	n.run(10 * time.Second)
	for i, s := range n.sides {
		if s.memory.failed != 0 || s.memory.interval() < steps[firstStep] {
			t.Errorf("side %d: %+v", i, s.memory)
		}
	}
}

func TestPeerThatIsGoneIsAskedNowAndThen(t *testing.T) {
	n := newNet2(side{}, side{})
	n.sides[1].down = true
	n.run(time.Hour)
	if got := n.sides[0].echoes; got < 100 || got > 1+maxTries*int(time.Hour/(steps[firstStep]+12*time.Second)) {
		t.Errorf("%d Echoes in an hour", got)
	}
	if m := n.sides[0].memory; m.failed != 0 {
		t.Errorf("learned %+v of nobody's answers", m)
	}
}

func TestIdleWayCostsLittle(t *testing.T) {
	n := newNet2(side{}, side{})
	n.run(24 * time.Hour)
	const packet = leg.EchoLen + 28 // UDP and IPv4
	if bytes := 2 * packet * (n.sides[0].echoes + n.sides[1].echoes); bytes > 50_000 {
		t.Errorf("%d bytes a day of one portal, asked and answered", bytes)
	}
}

func TestFailedStepIsTriedAgainEverLater(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	h := hold{}.lost(30*time.Second, now)
	if h.interval() != 15*time.Second {
		t.Fatalf("after 30 s were too long: %v", h.interval())
	}
	for _, wait := range []time.Duration{firstDelay, 2 * firstDelay, 4 * firstDelay} {
		held := func() {
			for range enough {
				h = h.survived(15*time.Second, now)
			}
		}
		now = now.Add(wait - time.Second)
		if held(); h.interval() != 15*time.Second {
			t.Errorf("%v are tried again a second before %v are over", h.interval(), wait)
		}
		now = now.Add(time.Second)
		if held(); h.interval() != 30*time.Second {
			t.Errorf("30 s are not tried again after %v", wait)
		}
		h = h.lost(31*time.Second, now)
	}
	for range 20 {
		h = h.lost(30*time.Second, now)
	}
	if h.wait != maxDelay {
		t.Errorf("tried again after %v, at most %v", h.wait, maxDelay)
	}
	if h = h.lost(time.Millisecond, now); h.interval() != steps[0] {
		t.Errorf("after 1 ms was too long: %v", h.interval())
	}
}

func TestLegThatWaitsForLongIsBoundMoreRarely(t *testing.T) {
	var total time.Duration
	binds := 0
	for ; total < 24*time.Hour; binds++ {
		next := waiting(steps[firstStep], binds)
		if binds < 20 && next != steps[firstStep] || next > 4*time.Minute {
			t.Fatalf("bind %d comes after %v", binds, next)
		}
		total += next
	}
	const bind = 2*(leg.RequestLen+28) + (leg.MaxAnswerLen + 28) + (108 + 28)
	if bytes := binds * bind; bytes > 400_000 {
		t.Errorf("a leg nobody uses costs %d bytes a day", bytes)
	}
	if got := waiting(10*time.Minute, 100); got != 10*time.Minute {
		t.Errorf("a network that holds for 10 min is asked after %v", got)
	}
}
