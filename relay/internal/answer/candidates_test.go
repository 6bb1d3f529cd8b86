package answer

import (
	"testing"
	"time"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// A forged SYN comes from the portal's address, with another port.

func TestForgedSYNsOnTheFirstLegDelayNothing(t *testing.T) {
	g := newRig(t)
	forged, a, b := g.peer("a-forged"), g.peer("a"), g.peer("b")
	forged.syn()
	b.syn()
	g.want("the forged one first", "a-forged < SYN b+0 ack a-forged+1")
	a.syn()
	g.want("then the real one", "a < SYN b+0 ack a+1")
	a.ack(b, 0)
	b.ack(a, 0)
	g.want("who read b's number is a", "b < SYN a+0 ack b+1", "b << a+1 ack b+1", "install a b", "a << b+1 ack a+1")
	g.wait(PendingTime)
	g.want("the forged one", "a-forged < RST b+1 ack a-forged+1")
	g.empty()
}

func TestForgedSYNOnTheSecondLegCostsOneDial(t *testing.T) {
	g := newRig(t)
	a, forged, b := g.peer("a"), g.peer("b-forged"), g.peer("b")
	a.syn()
	forged.syn()
	g.want("the forged one first", "a < SYN b-forged+0 ack a+1")
	b.syn()
	g.want("then the real one")
	a.ack(forged, 0)
	g.want("a cannot know", "b-forged < SYN a+0 ack b-forged+1", "b-forged << a+1 ack b-forged+1")
	g.wait(silence - Interval)
	g.want("one repetition each 250 and 500 ms later", "b-forged < SYN a+0 ack b-forged+1", "b-forged < SYN a+0 ack b-forged+1")
	g.wait(Interval)
	g.want("nobody answers, and there is somebody else", "a < RST b-forged+1 ack a+1")
	g.wantDrops(drop.HandshakeTimeout, 1)
	a = g.peer("a-second")
	a.syn()
	g.want("a dials anew", "a-second < SYN b+0 ack a-second+1")
	a.ack(b, 0)
	b.ack(a, 0)
	g.want("connected", "b < SYN a-second+0 ack b+1", "b << a-second+1 ack b+1",
		"install a-second b", "a-second << b+1 ack a-second+1")
}

func TestSystemWithoutSuchASocketTakesItsCandidateAway(t *testing.T) {
	g := newRig(t)
	a, forged, b := g.peer("a"), g.peer("b-forged"), g.peer("b")
	a.syn()
	forged.syn()
	b.syn()
	a.ack(forged, 0)
	g.lines = nil
	forged.reset()
	g.want("a must dial again", "a < RST b-forged+1 ack a+1")
	a = a.again("a-second")
	a.syn()
	g.want("at once", "a-second < SYN b+0 ack a-second+1")
}

func TestSlowestOfSeveralIsReset(t *testing.T) {
	g := newRig(t)
	one, two, b := g.peer("a-one"), g.peer("a-two"), g.peer("b")
	one.syn()
	two.syn()
	b.syn()
	g.want("both hear of b", "a-one < SYN b+0 ack a-one+1", "a-two < SYN b+0 ack a-two+1")
	two.ack(b, 0)
	g.want("one of them is faster", "b < SYN a-two+0 ack b+1", "b << a-two+1 ack b+1")
	one.ack(b, 100)
	g.want("the other", "a-one < RST b+1 ack a-one+101")
	b.ack(two, 0)
	g.want("which changes nothing", "install a-two b", "a-two << b+1 ack a-two+1")
	g.empty()
}

// An F that acknowledges an old number after the valid one, as no TCP does, goes
// and leaves behind an S that has read its number. S cannot forget it either.
func TestSecondLegThatReadAnOldNumberIsReset(t *testing.T) {
	g := newRig(t)
	liar, a, gone, b := g.peer("a-liar"), g.peer("a"), g.peer("b-gone"), g.peer("b")
	liar.syn()
	gone.syn()
	gone.reset()
	b.syn()
	a.syn()
	g.want("the liar hears of two", "a-liar < SYN b-gone+0 ack a-liar+1", "a-liar < SYN b+0 ack a-liar+1", "a < SYN b+0 ack a+1")
	liar.ack(b, 0)
	g.want("F is the liar", "b < SYN a-liar+0 ack b+1", "b << a-liar+1 ack b+1")
	liar.ack(gone, 0)
	g.want("it is found out", "a-liar < RST b-gone+1 ack a-liar+1")
	a.ack(b, 0)
	g.want("F is a", "b < SYN a+0 ack b+1", "b << a+1 ack b+1")
	b.ack(liar, 5)
	g.want("b has read the number of who is gone", "b < RST a-liar+1 ack b+6", "a < RST b+1 ack a+1")
	g.empty()
}

func TestLatestSYNOfTheSecondLegCounts(t *testing.T) {
	g := newRig(t)
	a, old, b := g.peer("a"), g.peer("b-old"), g.peer("b")
	b.syn()
	old.syn()
	b.syn()
	a.syn()
	g.want("b has shown itself again", "a < SYN b+0 ack a+1")

	g = newRig(t)
	a, old, b = g.peer("a"), g.peer("b-old"), g.peer("b")
	gone := g.peer("b-gone")
	a.syn()
	gone.syn()
	old.syn()
	b.syn()
	g.lines = nil
	gone.reset()
	g.want("the first one is gone: the latest", "a < SYN b+0 ack a+1")
	a.reset()
	old.syn()
	a.again("a2").syn()
	g.want("F is gone: the latest by now", "a2 < SYN b-old+0 ack a2+1")
}

func TestCandidatesAreFour(t *testing.T) {
	g := newRig(t)
	var all []*peer
	for range 6 {
		p := g.peer("a" + string(rune('0'+len(all))))
		all = append(all, p)
		p.syn()
	}
	g.wantDrops(drop.Evicted, 2)
	b := g.peer("b")
	b.syn()
	g.want("the last four", "a2 < SYN b+0 ack a2+1", "a3 < SYN b+0 ack a3+1", "a4 < SYN b+0 ack a4+1", "a5 < SYN b+0 ack a5+1")
	all[2].ack(b, 0)
	g.want("the proof", "b < SYN a2+0 ack b+1", "b << a2+1 ack b+1")
	for range 10 {
		g.peer("a-flood").syn()
		g.peer("b-flood").syn()
	}
	g.want("a flood")
	b.ack(all[2], 0)
	g.lines = g.lines[:2] // then the flood meets itself
	g.want("moves neither side of a handshake", "install a2 b", "a2 << b+1 ack a2+1")
}

func TestNewNumberFromTheSamePortReplacesAPendingOne(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	a2 := a.again("a2")
	a2.syn()
	b.syn()
	g.want("before it was offered anything", "a2 < SYN b+0 ack a2+1")
	b2 := b.again("b2")
	b2.syn()
	g.want("S, offered", "a2 < SYN b2+0 ack a2+1")
	a2.ack(b, 0)
	g.want("F has read the old number and cannot forget it", "a2 < RST b+1 ack a2+1")
	a3 := a2.again("a3")
	a3.syn()
	g.want("F dials again", "a3 < SYN b2+0 ack a3+1")
	a4 := a3.again("a4")
	a4.syn()
	g.want("F, offered", "a4 < SYN b2+0 ack a4+1")
	a4.ack(b2, 0)
	g.want("F is proven", "b2 < SYN a4+0 ack b2+1", "b2 << a4+1 ack b2+1")
	a4.again("a5").syn()
	g.want("a forger cannot take the place of who is proven")
	g.wantDrops(drop.WrongNumbers, 2)
	b3 := b2.again("b3")
	b3.syn()
	g.want("S is not proven yet: both dial again", "a5 < RST b2+1 ack a4+1")
}

func TestResetTakesACandidateAway(t *testing.T) {
	cross := func(t *testing.T) (*rig, *peer, *peer) {
		g := newRig(t)
		a, b := g.peer("a"), g.peer("b")
		a.syn()
		b.syn()
		a.ack(b, 10)
		g.lines = nil
		return g, a, b
	}
	t.Run("alone", func(t *testing.T) {
		g := newRig(t)
		a, b := g.peer("a"), g.peer("b")
		a.syn()
		a.send(packet.TCP{Seq: a.isn + 2, Flags: packet.RST})
		a.send(packet.TCP{Seq: a.isn + 2, Ack: 77, Flags: packet.RST | packet.ACK})
		g.wantDrops(drop.WrongNumbers, 2)
		a.reset()
		g.empty()
		b.syn()
		g.want("nobody is there")
	})
	t.Run("offered, F", func(t *testing.T) {
		g := newRig(t)
		a, b := g.peer("a"), g.peer("b")
		a.syn()
		b.syn()
		a.reset()
		g.want("F", "a < SYN b+0 ack a+1")
		a = a.again("a2")
		a.syn()
		g.want("b is still there", "a2 < SYN b+0 ack a2+1")
	})
	t.Run("crossing, F", func(t *testing.T) {
		g, a, b := cross(t)
		a.send(packet.TCP{Seq: a.isn + 500, Flags: packet.RST})
		g.wantDrops(drop.WrongNumbers, 1)
		a.send(packet.TCP{Seq: a.isn + 11, Flags: packet.RST})
		g.want("S may be connected", "b < RST a+11 ack b+1")
		b.ack(a, 0)
		g.want("too late")
		g.empty()
	})
	t.Run("crossing, F with data that was lost", func(t *testing.T) {
		g, a, b := cross(t)
		a.send(packet.TCP{Seq: a.isn + 500, Ack: b.isn + 1, Flags: packet.RST | packet.ACK})
		g.want("its acknowledgement proves it", "b < RST a+11 ack b+1")
		g.empty()
	})
	t.Run("crossing, S", func(t *testing.T) {
		g, _, b := cross(t)
		b.send(packet.TCP{Seq: b.isn + 3, Ack: 5, Flags: packet.RST | packet.ACK})
		g.wantDrops(drop.WrongNumbers, 1)
		b.reset()
		g.want("F is connected", "a < RST b+1 ack a+11")
		g.empty()
	})
}

func TestInstalledFlowIsLeftAloneUntilItIsClosed(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	g.connect(a, b)
	a2, b2 := a.again("a2"), b.again("b2")
	a2.syn()
	b2.syn()
	g.want("new SYNs")
	other := g.flows[0].Pair
	other.B.Port++
	g.Closed(g.now, other)
	a2.syn()
	g.want("another flow is closed")
	g.wantDrops(drop.Joined, 3)
	g.Closed(g.now, g.flows[0].Pair)
	a2.syn()
	b2.syn()
	g.want("closed", "a2 < SYN b2+0 ack a2+1")
	if _, n := g.Counts(); n != 0 || len(g.sessions) != 0 {
		t.Errorf("%d flows of %d sessions, want 0", n, len(g.sessions))
	}
}

func TestSlotServesTheNextConnectionWhileOneIsInstalled(t *testing.T) {
	g := newRig(t)
	g.connect(g.peer("a"), g.peer("b"))
	g.connect(g.peer("a"), g.peer("b")) // number n+8 is at the same port
	if _, n := g.Counts(); n != 2 {
		t.Errorf("%d flows, want 2", n)
	}
}

func TestClosedTupleRestsFromOtherSessions(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	g.connect(a, b)
	first := g.flows[0]
	if ended := g.End(g.now, first.Session); len(ended) != 1 || ended[0] != first {
		t.Errorf("ended %+v, want %+v", ended, first)
	}
	if ended := g.End(g.now, first.Session); len(ended) != 0 {
		t.Errorf("ended %+v again", ended)
	}
	second := g.session(2)
	a.syn()
	a.ack(b, 10)
	b.reset()
	g.wantDrops(drop.Quarantined, 3)
	g.empty()
	g.connect(g.peer("a"), g.peer("b")) // from other ports
	if f := g.flows[1]; f.Session != second {
		t.Errorf("the flow is of session %v, want %v", f.Session, second)
	}
	g.wait(QuarantineTime)
	g.connect(a, b)
	if len(g.quarantined.legs) != 0 {
		t.Errorf("%d legs rest for longer than a minute", len(g.quarantined.legs))
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	g := newRig(t)
	g.cfg.Limits.Quarantined = 3
	a, b := g.peer("a"), g.peer("b")
	for range 10 {
		a, b = a.again("a"), b.again("b")
		g.connect(a, b)
		g.Closed(g.now, g.flows[0].Pair)
	}
	if n := len(g.quarantined.legs); n != 2 {
		t.Errorf("%d legs rest, want the 2 there are", n)
	}
	for range 10 {
		g.connect(g.peer("a"), g.peer("b"))
		g.Closed(g.now, g.flows[len(g.flows)-1].Pair)
	}
	if n := len(g.quarantined.legs); n != 3 {
		t.Errorf("%d legs rest, want the limit of 3", n)
	}
	g.wait(QuarantineTime + time.Second)
	if n := len(g.quarantined.legs); n != 0 || len(g.quarantined.queue) != g.quarantined.head {
		t.Errorf("%d legs rest, want none", n)
	}
}

func TestEndedSessionIsForgotten(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	six := g.peer("a6")
	a.syn()
	b.syn()
	a.ack(b, 0)
	six.syn()
	id := g.admit[a.at.Addr()].ID
	g.lines = nil
	g.End(g.now, id)
	g.empty()
	g.wait(2 * PendingTime)
	g.want("an ended session")
}

func TestAdoptedFlowIsKnown(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	g.connect(a, b)
	f := g.flows[0]

	next := newRig(t)
	next.peers = g.peers
	next.Adopt(f)
	next.Adopt(f)
	a.rig, b.rig = next, next
	a.ack(b, 10)
	next.want("a packet of it", "b << a+1 ack b+1 len 10")
	a.again("a2").syn()
	next.want("a new SYN")
	next.wantDrops(drop.Joined, 1)
	if ended := next.End(next.now, f.Session); len(ended) != 1 || ended[0] != f {
		t.Errorf("ended %+v, want the adopted flow once", ended)
	}
	for range 10 {
		f.Pair.A.Port++
		f.Pair.B.Port++
		next.Adopt(f)
	}
	if _, n := next.Counts(); n != 4 {
		t.Errorf("%d flows, want the limit of 4", n)
	}
}

func TestBothLegsAreResetWhenTheTableIsFull(t *testing.T) {
	g := newRig(t)
	g.install = errFull
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	b.syn()
	a.ack(b, 10)
	g.lines = nil
	b.send(packet.TCP{Seq: b.isn + 1, Ack: a.isn + 11, Flags: packet.ACK, Payload: make([]byte, 3)})
	g.want("no room", "b < RST a+11 ack b+4", "a < RST b+1 ack a+11")
	g.empty()
	if _, n := g.Counts(); n != 0 {
		t.Errorf("%d flows, want none", n)
	}
}
