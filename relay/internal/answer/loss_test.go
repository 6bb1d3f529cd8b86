package answer

import (
	"testing"
	"time"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

const ms = time.Millisecond

func TestUnansweredSYNACKIsSentAgain(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	b.syn()
	again := "a < SYN b+0 ack a+1"
	g.want("at first", again)
	for _, d := range []time.Duration{250, 500, 1000, 2000} {
		g.wait(d*ms - Interval)
		g.want("before its time")
		g.wait(Interval)
		g.want("in its time", again)
	}
	g.wait(4 * time.Second)
	g.want("after the last time")
	a.ack(b, 0)
	again = "b < SYN a+0 ack b+1"
	g.want("then to the other", again, "b << a+1 ack b+1")
	for _, d := range []time.Duration{250, 500, 1000, 2000} {
		g.wait(d * ms)
		g.want("in its time", again)
	}
	g.wait(5 * time.Second)
	g.want("after the last time")
	g.wait(2 * time.Second)
	g.want("an F that nobody answers is told", "a < RST b+1 ack a+1")
	g.wantDrops(drop.HandshakeTimeout, 1)
	g.empty()
}

func TestRepeatedSYNGetsItsSYNACKAgain(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	a.syn()
	g.want("alone")
	b.syn()
	g.want("offered", "a < SYN b+0 ack a+1")
	a.syn()
	g.want("offered, F again", "a < SYN b+0 ack a+1")
	b.syn()
	g.want("offered, S again at once")
	g.wait(pause)
	b.syn()
	g.want("offered, S again: F may have heard nothing", "a < SYN b+0 ack a+1")
	a.ack(b, 0)
	g.want("crossing", "b < SYN a+0 ack b+1", "b << a+1 ack b+1")
	a.syn()
	g.want("crossing, F's SYN late", "a < SYN b+0 ack a+1")
	b.syn()
	g.want("crossing, S again", "b < SYN a+0 ack b+1")
	b.ack(a, 0)
	g.want("done", "install a b", "a << b+1 ack a+1")
}

func TestDataProvesAsTheACKWould(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	b.syn()
	g.lines = nil
	a.send(packet.TCP{Seq: a.isn + 1001, Ack: b.isn + 1, Flags: packet.ACK, Payload: make([]byte, 10)})
	g.want("the ACK and the first data are lost", "b < SYN a+0 ack b+1", "b << a+1001 ack b+1 len 10")
	a.ack(b, 1000)
	g.want("the first data come again", "b << a+1 ack b+1 len 1000")
	b.send(packet.TCP{Seq: b.isn + 501, Ack: a.isn + 1011, Flags: packet.ACK, Payload: make([]byte, 10)})
	g.want("S acknowledges all of it", "install a b", "a << b+501 ack a+1011 len 10")
}

func TestWrongNumbersBindNothing(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	n := uint64(0)
	try := func(p *peer, seq, ack uint32) {
		t.Helper()
		p.send(packet.TCP{Seq: seq, Ack: ack, Flags: packet.ACK, Payload: make([]byte, 10)})
		n++
		g.want("wrong numbers")
		g.wantDrops(drop.WrongNumbers, n)
	}
	a.syn()
	try(a, a.isn+1, 1)
	b.syn()
	g.lines = nil
	for _, ack := range []uint32{0, b.isn, b.isn + 2, b.isn - 1, a.isn + 1, b.isn + 1<<31} {
		try(a, a.isn+1, ack)
	}
	for _, seq := range []uint32{0, a.isn, a.isn + 65537, a.isn - 1000} {
		try(a, seq, b.isn+1)
	}
	try(b, b.isn+1, a.isn+1) // S has not heard of F yet: it can only guess
	a.ack(b, 100)
	g.lines = nil
	for _, ack := range []uint32{0, a.isn, a.isn + 2, a.isn + 100, a.isn + 102, b.isn + 1} {
		try(b, b.isn+1, ack)
	}
	for _, seq := range []uint32{0, b.isn, b.isn + 65537} {
		try(b, seq, a.isn+1)
	}
	for _, ack := range []uint32{0, b.isn, b.isn + 2} {
		try(a, a.isn+101, ack)
	}
	b.ack(a, 0)
	g.want("the right ones", "install a b", "a << b+1 ack a+1")
}

func TestWhatIsPassedOnBeforeTheProofIsBounded(t *testing.T) {
	begin := func() (*rig, *peer, *peer) {
		g := newRig(t)
		a, b := g.peer("a"), g.peer("b")
		a.syn()
		b.syn()
		a.ack(b, 0)
		g.lines = nil
		return g, a, b
	}
	g, a, b := begin()
	for range 100 {
		a.ack(b, 1)
	}
	if len(g.lines) != maxPackets-1 {
		t.Errorf("%d packets after the first, want %d", len(g.lines), maxPackets-1)
	}
	g.wantDrops(drop.Limit, 100-maxPackets+1)

	g, a, b = begin()
	for range 5 {
		a.ack(b, maxBytes/4)
	}
	if len(g.lines) != 4 {
		t.Errorf("%d packets of %d bytes, want 4", len(g.lines), maxBytes/4)
	}
	g.lines = nil
	b.ack(a, 0)
	a.ack(b, maxBytes/4)
	g.want("no bound after it", "install a b", "a << b+1 ack a+1", "b << a+1 ack b+1 len 16384")
}

func TestSimultaneousSYNsMeet(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	b.syn() // the clock does not tell them apart
	a.syn()
	a.syn()
	b.syn()
	g.want("both at once", "a < SYN b+0 ack a+1", "a < SYN b+0 ack a+1")
	a.ack(b, 0)
	b.ack(a, 0)
	g.want("connected", "b < SYN a+0 ack b+1", "b << a+1 ack b+1", "install a b", "a << b+1 ack a+1")
}
