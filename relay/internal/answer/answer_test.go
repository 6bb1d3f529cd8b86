package answer

import (
	"testing"
	"time"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

func TestEachSYNIsAnsweredForTheOtherSide(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}, {"a6", "b6"}, {"b6", "a6"}} {
		t.Run(names[0]+" comes first", func(t *testing.T) {
			g := newRig(t)
			a, b := g.peer(names[0]), g.peer(names[1])
			a.syn()
			g.want("one leg alone")
			g.now = g.now.Add(time.Millisecond)
			b.syn()
			if a.name[0] == 'b' {
				a, b = b, a
			}
			A, B := a.name, b.name
			g.want("the opener", A+" < SYN "+B+"+0 ack "+A+"+1")
			a.ack(b, 5)
			g.want("the opener's proof", B+" < SYN "+A+"+0 ack "+B+"+1", B+" << "+A+"+1 ack "+B+"+1 len 5")
			b.ack(a, 7)
			g.want("the other's proof", "install "+A+" "+B, A+" << "+B+"+1 ack "+A+"+1 len 7")
			want := Flow{Session: g.flows[0].Session}
			want.Pair.Protocol = 6
			want.Pair.A.Remote, want.Pair.A.Local, want.Pair.A.Port = a.at, a.to.Addr(), a.to.Port()
			want.Pair.B.Remote, want.Pair.B.Local, want.Pair.B.Port = b.at, b.to.Addr(), b.to.Port()
			if g.flows[0] != want {
				t.Errorf("installed %+v, want %+v", g.flows[0], want)
			}
			g.empty()
		})
	}
}

func TestPacketsThatWereUnderWayDuringTheInstallGoOn(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	g.connect(a, b)
	b.ack(a, 100)
	a.send(packet.TCP{Seq: a.isn + 6, Ack: b.isn + 101, Flags: packet.ACK | packet.FIN})
	g.want("after the install", "a << b+1 ack a+1 len 100", "b << FIN a+6 ack b+101")
	a.syn()
	a.again("a2").syn()
	g.want("SYNs of an installed flow, which are never forwarded")
	g.wantDrops(drop.Joined, 2)
}

func TestLegAloneIsForgotten(t *testing.T) {
	g := newRig(t)
	a := g.peer("a")
	a.syn()
	g.wait(PendingTime - time.Second)
	a.syn()
	g.wait(PendingTime - Interval)
	if n, _ := g.Counts(); n != 1 {
		t.Errorf("%d handshakes, want the one that was heard of again", n)
	}
	g.wait(Interval)
	g.want("all the time")
	g.empty()
	g.wantDrops(drop.WaitTimeout, 1)
}

func TestLegsOfDifferentVersionsNeverMeet(t *testing.T) {
	g := newRig(t)
	a4, b6 := g.peer("a"), g.peer("b6")
	a4.syn()
	b6.syn()
	g.want("IPv4 and IPv6")
	b4 := g.peer("b")
	b4.syn()
	g.want("IPv4 on both sides", "a < SYN b+0 ack a+1")
}

func TestPortsOfABlockAreSlotsOfTheirOwn(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.syn()
	port := b.to.Port()
	for n := range uint16(8) {
		if blockB+n == port {
			continue
		}
		b.to = netipAddrPort(b, blockB+n)
		b.syn()
	}
	g.want("other numbers")
	b.to = netipAddrPort(b, blockB+8)
	b.syn()
	b.to = netipAddrPort(b, blockA)
	b.syn()
	g.want("ports that are not the leg's")
	g.wantDrops(drop.UnknownSource, 2)
	b.to = netipAddrPort(b, port)
	b.syn()
	g.wantDrops(drop.Limit, 0)
	g.want("the same number", "a < SYN b+0 ack a+1")
}

func TestStrangersGetSilence(t *testing.T) {
	g := newRig(t)
	p := g.peer("a")
	clear(g.admit)
	p.syn()
	p.send(packet.TCP{Seq: 1, Ack: 1, Flags: packet.ACK})
	p.reset()
	g.want("a source that nobody admitted")
	g.wantDrops(drop.UnknownSource, 3)
	g.empty()
}

func TestPacketsOfNoHandshakeGetSilence(t *testing.T) {
	g := newRig(t)
	a, b := g.peer("a"), g.peer("b")
	a.ack(b, 10)
	a.reset()
	b.syn()
	a.ack(b, 10)
	a.reset()
	g.want("without a SYN")
	g.wantDrops(drop.UnknownSource, 4)
}

func TestOddFlagsAreDropped(t *testing.T) {
	g := newRig(t)
	a := g.peer("a")
	odd := []packet.Flags{
		0, packet.FIN, packet.PSH,
		packet.SYN | packet.ACK, packet.SYN | packet.RST, packet.SYN | packet.FIN,
		packet.RST | packet.FIN, packet.SYN | packet.ACK | packet.RST | packet.FIN,
	}
	for _, f := range odd {
		a.send(packet.TCP{Seq: a.isn, Flags: f})
	}
	g.want("no such packet in TCP")
	g.wantDrops(drop.Malformed, uint64(len(odd)))
	g.empty()
}

func TestDamagedPacketsAreCounted(t *testing.T) {
	g := newRig(t)
	a := g.peer("a")
	b := packet.AppendTCP(nil, packet.TCP{Source: a.at, Dest: a.to, Seq: a.isn, Flags: packet.SYN, Options: usual.AppendTo(nil)})
	b[len(b)-1] ^= 1
	g.Handle(g.now, b)
	g.wantDrops(drop.Checksum, 1)
	b[len(b)-1] ^= 1
	for n := range b {
		g.Handle(g.now, b[:n])
	}
	g.wantDrops(drop.Malformed, uint64(len(b)))
	a.extra = []byte{1, 1, 3, 9} // a window scale longer than the options
	a.offer = packet.Offer{}
	a.syn()
	g.wantDrops(drop.Malformed, uint64(len(b))+1)
	g.empty()
	g.Handle(g.now, append(b, 0, 0, 0, 0)) // Ethernet padding
	if n, _ := g.Counts(); n != 1 {
		t.Error("the whole packet is no candidate")
	}
}

func TestTablesAreBounded(t *testing.T) {
	g := newRig(t)
	var all []*peer
	for n := range uint16(8) {
		for _, name := range []string{"a", "a6"} {
			p := g.peer(name)
			p.to = netipAddrPort(p, blockA+n)
			all = append(all, p)
			p.syn()
		}
	}
	g.wantDrops(drop.Limit, 8)
	if n, _ := g.Counts(); n != 8 {
		t.Errorf("%d handshakes, want the limit of 8", n)
	}
	g.wait(PendingTime)
	for i := range 5 {
		a, b := all[2*i], g.peer("b")
		b.to = netipAddrPort(b, blockB+uint16(i))
		a.syn()
		b.syn()
		g.lines = nil
		a.ack(b, 0)
		b.ack(a, 0)
	}
	last := g.peers[len(g.peers)-1]
	g.want("a flow too many", last.name+" < SYN a+0 ack b+1", "b << a+1 ack b+1", "b < RST a+1 ack b+1", "a < RST b+1 ack a+1")
	g.empty()
}
