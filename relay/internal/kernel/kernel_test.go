package kernel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
	"github.com/netport/netport/relay/internal/source"
)

var (
	start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	own   = netip.MustParseAddr("203.0.113.1")
	ann   = netip.MustParseAddrPort("192.0.2.1:40000")
	bo    = netip.MustParseAddrPort("198.51.100.2:50000")
)

// plane is a scripted kernel plane: a table, and what it says has ended.
type plane struct {
	pairs   map[bpf.Pair]bpf.Terms
	carried bpf.Counters // by every pair
	closed  []bpf.Ended
	full    bool
}

func (p *plane) Name() string { return "scripted" }
func (p *plane) Close() error { return nil }

func (p *plane) Add(pair bpf.Pair, terms bpf.Terms) error {
	if p.full {
		return errors.New("full")
	}
	p.pairs[pair] = terms
	return nil
}

func (p *plane) Remove(pair bpf.Pair) (bpf.Counters, error) {
	if _, ok := p.pairs[pair]; !ok {
		return bpf.Counters{}, nil
	}
	delete(p.pairs, pair)
	return p.carried, nil
}

func (p *plane) RemoveBatch(pairs []bpf.Pair) (list []bpf.Counters, err error) {
	for _, pair := range pairs {
		c, _ := p.Remove(pair)
		list = append(list, c)
	}
	return list, nil
}

func (p *plane) Counters(pair bpf.Pair) (bpf.Counters, error) {
	if _, ok := p.pairs[pair]; !ok {
		return bpf.Counters{}, nil
	}
	return p.carried, nil
}

func (p *plane) Closed() []bpf.Ended { return p.closed }

func (p *plane) Other(protocol bpf.Protocol, leg bpf.Leg) (bpf.Leg, bool) {
	for pair := range p.pairs {
		if pair.Protocol == protocol && pair.A == leg {
			return pair.B, true
		}
		if pair.Protocol == protocol && pair.B == leg {
			return pair.A, true
		}
	}
	return bpf.Leg{}, false
}

func (p *plane) Run(ctx context.Context, _ func(bpf.Event)) error {
	<-ctx.Done()
	return nil
}

// What the rules have the kernel keep is not looked at here.
func (p *plane) Admit(netip.Addr, uint16) error          { return nil }
func (p *plane) Dismiss(netip.Addr, uint16) error        { return nil }
func (p *plane) PutRecord(lease.RecordKey, []byte) error { return nil }
func (p *plane) DeleteRecord(lease.RecordKey) error      { return nil }

// sent is what a Relay has sent.
type sent struct {
	packets   []packet.TCP
	forwarded []bpf.Leg
	tooBig    []int
}

func (s *sent) Send(b []byte) {
	if t, why := packet.ParseTCP(slices.Clone(b)); why == drop.None {
		s.packets = append(s.packets, t)
	}
}

func (s *sent) Forward(_ []byte, to bpf.Leg, _ uint16) { s.forwarded = append(s.forwarded, to) }
func (s *sent) TooBig(_ []byte, mtu int)               { s.tooBig = append(s.tooBig, mtu) }

func (s *sent) MTU(netip.Addr) int { return 1500 }

// world is a Relay over a scripted plane, with one session.
type world struct {
	*Relay
	t       *testing.T
	now     time.Time
	plane   *plane
	sent    *sent
	leases  *lease.Table
	expired []bpf.Pair
	session lease.Session
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: start, plane: &plane{pairs: make(map[bpf.Pair]bpf.Terms)}, sent: &sent{}}
	w.leases = lease.NewTable(lease.Limits{First: 20000, Last: 28671, Sessions: 10, PerPortal: 10, Packet: &lease.Packet{
		First: 28672, Last: 32767, Kernel: w.plane,
		Sources: &source.Rules{Own: func(a netip.Addr) bool { return a == own }},
	}})
	w.Relay = New(Config{
		Plane: w.plane, Sender: w.sent, Leases: w.leases, Capacity: 10, Drops: new(drop.Counters),
		Bytes:   1000,
		Expired: func(p bpf.Pair) { w.expired = append(w.expired, p) },
		Log:     slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now },
	})
	var err error
	w.session, _, err = w.leases.Create(w.now, wire.CreateSession{
		ID: wire.NewSessionID(), Lifetime: 60, Transports: wire.TransportPacket,
		Legs: [2]wire.Leg{
			{Portal: "ann", Secret: wire.NewSecret(), Source: ann.Addr()},
			{Portal: "bo", Secret: wire.NewSecret(), Source: bo.Addr()},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Open(w.session, lease.Traffic{})
	return w
}

// from has a segment of a leg come to its first packet port.
func (w *world) from(leg int, seq, ack uint32, flags packet.Flags) {
	remote := [2]netip.AddrPort{ann, bo}[leg]
	b := packet.AppendTCP(nil, packet.TCP{
		Source: remote, Dest: netip.AddrPortFrom(own, w.session.Packet[leg]), Seq: seq, Ack: ack, Flags: flags, Window: 1000,
	})
	w.handle(bpf.Event{Kind: bpf.Handshake, Packet: b})
}

// join runs a handshake to its end and returns the pair that it makes.
func (w *world) join() bpf.Pair {
	w.t.Helper()
	w.from(0, 100, 0, packet.SYN)
	w.from(1, 200, 0, packet.SYN)
	w.from(0, 101, 201, packet.ACK)
	w.from(1, 201, 101, packet.ACK)
	for p := range w.plane.pairs {
		return p
	}
	w.t.Fatalf("no pair was installed; sent: %+v", w.sent.packets)
	return bpf.Pair{}
}

func TestHandshakeEndsInThePlane(t *testing.T) {
	w := newWorld(t)
	got := w.join()
	want := bpf.Pair{
		Protocol: bpf.TCP,
		A:        bpf.Leg{Remote: ann, Port: w.session.Packet[0], Local: own},
		B:        bpf.Leg{Remote: bo, Port: w.session.Packet[1], Local: own},
	}
	if terms := (bpf.Terms{Lifetime: time.Minute, Bytes: 1000}); got != want || w.plane.pairs[got] != terms {
		t.Errorf("installed %+v, %+v; want %+v, %+v", got, w.plane.pairs[got], want, terms)
	}
	if now, ever := w.Joined(w.session.ID); now != 1 || ever != 1 {
		t.Errorf("joined: %d of %d", now, ever)
	}
	if due := w.leases.Expired(start.Add(lease.ProveTime)); len(due) != 0 {
		t.Error("the session expires as if nobody had come")
	}
}

func TestSessionTakesItsPairsAlong(t *testing.T) {
	w := newWorld(t)
	w.join()
	w.plane.carried = bpf.Counters{FromA: bpf.Traffic{Bytes: 7}, FromB: bpf.Traffic{Bytes: 9}}
	want := lease.Traffic{7, 9}
	if got := w.Traffic(w.session.ID); got != want {
		t.Errorf("carried %v, want %v", got, want)
	}
	if got := w.Settled(w.session.ID); got != (lease.Traffic{}) {
		t.Errorf("settled %v, but the kernel still counts", got)
	}
	if got := w.Close(w.session.ID); got != want || len(w.plane.pairs) != 0 {
		t.Errorf("carried %v, want %v; %d pairs are left", got, want, len(w.plane.pairs))
	}
}

func TestPairGoesWhenItsConnectionHasEnded(t *testing.T) {
	w := newWorld(t)
	p := w.join()
	w.plane.carried = bpf.Counters{FromA: bpf.Traffic{Bytes: 7}}
	w.plane.closed = []bpf.Ended{{Pair: p, Idle: closedTime - time.Second}}
	w.Sweep()
	if len(w.plane.pairs) != 1 {
		t.Fatal("removed while its ends may still be there")
	}
	w.plane.closed[0].Idle = closedTime
	w.Sweep()
	if len(w.plane.pairs) != 0 {
		t.Error("the pair is still there")
	}
	if got := w.Settled(w.session.ID); got != (lease.Traffic{7, 0}) {
		t.Errorf("settled %v", got)
	}
	w.plane.closed = nil
	w.join() // from the same ports again
	if now, ever := w.Joined(w.session.ID); now != 1 || ever != 2 {
		t.Errorf("joined: %d of %d", now, ever)
	}
}

func TestUDPPairIsItsOwnersToJudge(t *testing.T) {
	w := newWorld(t)
	p := bpf.Pair{Protocol: bpf.UDP}
	w.plane.closed = []bpf.Ended{{Pair: p, Expired: true}}
	w.Sweep()
	if !slices.Equal(w.expired, []bpf.Pair{p}) {
		t.Errorf("told of %v", w.expired)
	}
}

func TestFullKernelResetsBothLegs(t *testing.T) {
	w := newWorld(t)
	w.plane.full = true
	w.from(0, 100, 0, packet.SYN)
	w.from(1, 200, 0, packet.SYN)
	w.from(0, 101, 201, packet.ACK)
	w.from(1, 201, 101, packet.ACK)
	reset := make(map[netip.AddrPort]bool)
	for _, p := range w.sent.packets {
		if p.Flags&packet.RST != 0 {
			reset[p.Dest] = true
		}
	}
	if !reset[ann] || !reset[bo] || len(w.plane.pairs) != 0 {
		t.Errorf("reset: %v", reset)
	}
}

func TestPairsOfAnEarlierRelayAreTakenOver(t *testing.T) {
	w := newWorld(t)
	known := bpf.Pair{
		Protocol: bpf.TCP,
		A:        bpf.Leg{Remote: ann, Port: w.session.Packet[0] + 3, Local: own},
		B:        bpf.Leg{Remote: bo, Port: w.session.Packet[1] + 3, Local: own},
	}
	stranger := known
	stranger.A.Remote = netip.MustParseAddrPort("192.0.2.99:1")
	for _, p := range []bpf.Pair{known, stranger} {
		w.plane.Add(p, bpf.Terms{})
	}
	if n := w.Adopt([]bpf.Pair{known, stranger}); n != 1 {
		t.Errorf("took %d pairs, want 1", n)
	}
	if _, ok := w.plane.pairs[stranger]; ok || len(w.plane.pairs) != 1 {
		t.Errorf("pairs: %v", w.plane.pairs)
	}
	if pending, flows := w.Counts(); pending != 0 || flows != 1 {
		t.Errorf("%d handshakes, %d flows", pending, flows)
	}
}

func TestPacketThatTheProgramCouldNotSendIsForwarded(t *testing.T) {
	w := newWorld(t)
	p := w.join()
	w.sent.forwarded = nil // packets of the handshake
	late := packet.AppendTCP(nil, packet.TCP{
		Source: bo, Dest: netip.AddrPortFrom(own, w.session.Packet[1]), Seq: 201, Ack: 101, Flags: packet.ACK,
	})
	w.handle(bpf.Event{Kind: bpf.Forward, Packet: late})
	if want := []bpf.Leg{p.A}; !slices.Equal(w.sent.forwarded, want) {
		t.Errorf("forwarded to %+v, want %+v", w.sent.forwarded, want)
	}
	w.handle(bpf.Event{Kind: bpf.Forward, Packet: late[:21]})
	stranger := slices.Clone(late)
	stranger[21]++ // its source port; nobody looks at the checksum here
	w.handle(bpf.Event{Kind: bpf.Forward, Packet: stranger})
	if len(w.sent.forwarded) != 1 {
		t.Errorf("forwarded to %+v too", w.sent.forwarded[1:])
	}
	w.handle(bpf.Event{Kind: bpf.TooBig, Packet: late, MTU: 1280})
	if want := []int{1280}; !slices.Equal(w.sent.tooBig, want) {
		t.Errorf("told too big: %v, want %v", w.sent.tooBig, want)
	}
}
