package answer

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/netport/netport/relay/internal/packet"
)

// forge throws packets at the machine that claim to come from a and b: from their
// own sockets or from others, with numbers that are guessed.
func (g *rig) forge(r *rand.Rand, n int, peers []*peer, kinds ...packet.Flags) {
	for range n {
		p := *peers[r.IntN(len(peers))]
		if r.IntN(2) == 0 {
			p.at = netip.AddrPortFrom(p.at.Addr(), 1024+uint16(r.IntN(30000)))
		}
		t := packet.TCP{Flags: kinds[r.IntN(len(kinds))], Seq: r.Uint32(), Ack: r.Uint32(), Payload: make([]byte, r.IntN(20))}
		if t.Flags == packet.SYN {
			t.Options = usual.AppendTo(nil)
		}
		p.send(t)
	}
}

func TestGuessedNumbersStopNoHandshake(t *testing.T) {
	g := newRig(t)
	r := rand.New(rand.NewPCG(3, 4))
	a, b := g.peer("a"), g.peer("b")
	storm := func() {
		g.forge(r, 25_000, []*peer{a, b}, packet.ACK, packet.RST, packet.RST|packet.ACK, packet.ACK|packet.FIN)
	}
	storm()
	a.syn()
	storm()
	b.syn()
	storm()
	a.ack(b, 0)
	storm()
	b.ack(a, 0)
	g.want("through 100,000 forged packets", "a < SYN b+0 ack a+1", "b < SYN a+0 ack b+1", "b << a+1 ack b+1",
		"install a b", "a << b+1 ack a+1")
}

// Who knows the number that F must acknowledge is not F for that, if it is of the
// other leg: here S's number is one that another candidate of its leg has read.
func TestNobodyOfTheSecondLegBecomesF(t *testing.T) {
	g := newRig(t)
	liar, gone, b, forged := g.peer("a-liar"), g.peer("b-gone"), g.peer("b"), g.peer("b-forged")
	liar.syn()
	gone.syn()
	gone.reset()
	b.syn()
	liar.ack(b, 0)
	liar.ack(gone, 0) // so it goes, and b has read its number
	g.lines = nil
	forged.isn = liar.isn
	forged.syn()
	g.peer("a").syn()
	g.want("the forged one is the latest", "a < SYN b-forged+0 ack a+1")
	b.ack(liar, 0)
	g.want("b has read an old number", "b < RST b-forged+1 ack b+1")
}

func TestOldNumbersAreRememberedWithinBounds(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	all := []*peer{b}
	b.syn()
	for range maxCandidates {
		b = b.again("b")
		all = append(all, b)
		b.syn()
	}
	g.lines = nil
	a.ack(all[0], 0)
	g.want("a number that is forgotten")
	a.ack(all[1], 0)
	g.want("the oldest that is not", "a < RST b+1 ack a+1")
}

func TestFloodOfForgedSYNsTakesNoLeg(t *testing.T) {
	g := newRig(t)
	r := rand.New(rand.NewPCG(5, 6))
	a, b := g.peer("a"), g.peer("b")
	for range 100 {
		g.forge(r, 1000, []*peer{a, b}, packet.SYN, packet.SYN, packet.ACK, packet.RST)
		g.wait(Interval)
	}
	if len(g.flows) != 0 {
		t.Errorf("installed %v", g.flows)
	}
	if pending, _ := g.Counts(); pending > 1 || len(g.slots) > 1 {
		t.Errorf("%d slots for one port", pending)
	}
	g.lines = nil
	g.wait(PendingTime)
	g.lines = nil
	g.connect(a, b)
}

// What goes to an address because of forged SYNs is no more than they were,
// but for the bounded repetitions to the last few.
func TestFloodIsNotAmplified(t *testing.T) {
	g := newRig(t)
	r := rand.New(rand.NewPCG(7, 8))
	a, b := g.peer("a"), g.peer("b")
	count := &counting{rig: g}
	g.cfg.Edge = count
	b.syn()
	const n = 10_000
	g.forge(r, n, []*peer{a}, packet.SYN)
	g.wait(2 * PendingTime)
	most := n + maxCandidates*(len(retries)+1)
	if count.packets > most || count.bytes > most*60 {
		t.Errorf("%d packets of %d bytes for %d SYNs, want at most %d", count.packets, count.bytes, n, most)
	}
	if count.packets < n/2 {
		t.Errorf("%d packets for %d SYNs: the flood was not one", count.packets, n)
	}
}

// counting counts what is sent.
type counting struct {
	*rig
	packets, bytes int
}

func (e *counting) Send(b []byte) {
	e.packets++
	e.bytes += len(b)
}
