package answer

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
)

// world is two endpoints, the relay and a network that loses, doubles and
// reorders between them, in a time of its own. While a flow is installed the
// world does what the kernel program would.
type world struct {
	t    *testing.T
	rand *rand.Rand
	now  time.Time
	m    *Machine
	ends [2]*endpoint

	loss, double float64
	spread       time.Duration // by which packets overtake each other
	healed       time.Time     // from when on nothing is lost

	table  map[tuple]bpf.Leg
	queue  arrivals
	events uint64
}

// arrival is something that happens at a time.
type arrival struct {
	at    time.Time
	order uint64
	do    func()
}

type arrivals []arrival

func (a arrivals) Len() int      { return len(a) }
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a arrivals) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].order < a[j].order
}
func (a *arrivals) Push(x any) { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	w.events++
	heap.Push(&w.queue, arrival{w.now.Add(d), w.events, do})
}

// carry brings a packet over one leg, or not.
func (w *world) carry(b []byte, deliver func([]byte)) {
	copies := 1
	if w.now.Before(w.healed) {
		if w.rand.Float64() < w.loss {
			return
		}
		if w.rand.Float64() < w.double {
			copies++
		}
	}
	for range copies {
		w.after(10*ms+time.Duration(w.rand.Int64N(int64(w.spread)+1)), func() { deliver(b) })
	}
}

// relay is where packets come in.
func (w *world) relay(b []byte) {
	t, why := packet.ParseTCP(b)
	if why != drop.None {
		w.t.Fatalf("an endpoint sent a packet that is %v", why)
	}
	if to, ok := w.table[tupleOf(t)]; ok && t.Flags&packet.SYN == 0 {
		w.Forward(b, to, 0)
		return
	}
	w.m.Handle(w.now, b)
}

func (w *world) Send(b []byte) {
	b = append([]byte(nil), b...)
	t, why := packet.ParseTCP(b)
	if why != drop.None {
		w.t.Fatalf("the machine sent a packet that is %v", why)
	}
	for _, e := range w.ends {
		if e.address.Addr() == t.Dest.Addr() {
			w.carry(b, e.receive)
		}
	}
}

func (w *world) Install(f Flow) error {
	w.table[tupleOfLeg(f.Pair.A)] = f.Pair.B
	w.table[tupleOfLeg(f.Pair.B)] = f.Pair.A
	return nil
}

func (w *world) Forward(b []byte, to bpf.Leg, _ uint16) {
	b, why := packet.Rewrite(append([]byte(nil), b...), netip.AddrPortFrom(to.Local, to.Port), to.Remote)
	if why != drop.None {
		w.t.Fatalf("a packet cannot be forwarded: %v", why)
	}
	w.Send(b)
}

func (w *world) MTU(netip.Addr) int { return 1500 }

// endpoint is a portal's machine: a TCP that checks what Linux checks, and a
// portal that dials again when its connection fails or nothing was heard for 10
// seconds. It is content when it has read the other's three messages and its own
// are acknowledged.
type endpoint struct {
	*world
	name    string
	address netip.AddrPort // the port is that of the last dial
	to      netip.AddrPort
	dials   int
	late    bool // its portal has nothing to say before the other has

	connected bool
	opened    time.Time // when it dialled
	stamp     uint32    // by its clock
	since     time.Time // when it was connected
	heard     time.Time // when it had read the first message
	isn       uint32
	next      uint32 // what it expects
	acked     int    // bytes of its own
	read      int
	peerShift int
	stamps    bool
	recent    uint32 // the other's last timestamp
	objected  time.Time
	failed    []string
}

const message, messages = 100, 3

func (e *endpoint) clock() uint32 {
	return uint32(e.now.Sub(start)/time.Millisecond) + uint32(len(e.name))<<20 // two different clocks
}

func (e *endpoint) done() bool {
	return e.connected && e.read == message*messages && e.acked == message*messages
}

func (e *endpoint) dial() {
	e.dials++
	e.address = netip.AddrPortFrom(e.address.Addr(), 40000+uint16(e.dials))
	e.connected, e.acked, e.read = false, 0, 0
	e.opened, e.stamp = e.now, e.clock()
	e.isn = e.rand.Uint32()
	e.transmit(e.dials, 0)
	e.after(10*time.Second, e.giveUp(e.dials))
}

// giveUp is the portal's own limit for a handshake.
func (e *endpoint) giveUp(dial int) func() {
	return func() {
		if e.dials == dial && e.read == 0 {
			e.dial()
		}
	}
}

// transmit sends what is due and comes back until nothing is.
func (e *endpoint) transmit(dial, try int) {
	if e.dials != dial || e.connected && e.acked == message*messages {
		return
	}
	wait := time.Second
	switch {
	case !e.connected:
		e.send(packet.TCP{Seq: e.isn, Flags: packet.SYN, Options: e.offer().AppendTo(nil)})
	case e.late && e.read == 0: // it listens
	default:
		wait = 200 * ms
		e.send(packet.TCP{
			Seq: e.isn + 1 + uint32(e.acked), Ack: e.next, Flags: packet.ACK | packet.PSH,
			Payload: make([]byte, message),
		})
	}
	e.after(wait, func() { e.transmit(dial, try+1) })
}

func (e *endpoint) offer() packet.Offer {
	return packet.Offer{MSS: 1460, SACK: true, Stamps: true, Time: e.clock(), Scales: true, Shift: uint8(len(e.name))}
}

func (e *endpoint) send(t packet.TCP) {
	t.Source, t.Dest, t.Window = e.address, e.to, 64240
	if t.Flags&packet.SYN == 0 && e.stamps {
		t.Options = packet.Offer{Stamps: true, Time: e.clock(), EchoTime: e.recent}.AppendTo(nil)
	}
	e.carry(packet.AppendTCP(nil, t), e.relay)
}

func (e *endpoint) receive(b []byte) {
	t, why := packet.ParseTCP(b)
	if why != drop.None {
		e.t.Fatalf("%s got a packet that is %v", e.name, why)
	}
	o, ok := packet.ParseOffer(t.Options)
	if !ok || t.Source != e.to {
		e.t.Fatalf("%s got %+v", e.name, t)
	}
	switch {
	case t.Dest != e.address: // a socket that is closed
		if t.Flags&packet.RST == 0 {
			old := *e
			old.address, old.stamps = t.Dest, false
			old.send(packet.TCP{Seq: t.Ack, Flags: packet.RST})
		}
	case !e.connected:
		e.synSent(t, o)
	default:
		e.established(t, o)
	}
}

// synSent is RFC 9293 section 3.10.7.3 with what Linux adds to it.
func (e *endpoint) synSent(t packet.TCP, o packet.Offer) {
	if t.Flags&packet.ACK == 0 {
		e.t.Fatalf("%s got a bare SYN or worse, which firewalls drop: %+v", e.name, t)
	}
	if t.Ack != e.isn+1 {
		if t.Flags&packet.RST == 0 {
			e.send(packet.TCP{Seq: t.Ack, Flags: packet.RST})
		}
		return
	}
	if t.Flags&packet.RST != 0 {
		e.fail("refused")
		return
	}
	if t.Flags&packet.SYN == 0 {
		return
	}
	if t.Flags != packet.SYN|packet.ACK || len(t.Payload) > 0 {
		e.t.Fatalf("%s got a SYN-ACK with more in it: %+v", e.name, t)
	}
	if !o.Stamps || !o.Scales || !o.SACK || o.MSS != 1460 {
		e.t.Fatalf("%s got a SYN-ACK that lacks what both offer: %+v", e.name, o)
	}
	if last := e.clock(); o.EchoTime-e.stamp > last-e.stamp {
		e.t.Fatalf("%s reads its time as %d, not from %d to %d (Linux resets)", e.name, o.EchoTime, e.stamp, last)
	}
	e.connected, e.since = true, e.now
	e.next, e.stamps, e.recent, e.peerShift = t.Seq+1, true, o.Time, int(o.Shift)
	e.send(packet.TCP{Seq: e.isn + 1, Ack: e.next, Flags: packet.ACK})
	e.transmit(e.dials, 0)
}

func (e *endpoint) established(t packet.TCP, o packet.Offer) {
	answer := func() { e.send(packet.TCP{Seq: e.isn + 1 + uint32(e.acked), Ack: e.next, Flags: packet.ACK}) }
	object := func() { // at most every 500 ms, as Linux does (tcp_invalid_ratelimit), or two of them never stop
		if e.now.Sub(e.objected) >= 500*ms {
			e.objected = e.now
			answer()
		}
	}
	if t.Flags&packet.RST != 0 {
		if t.Seq == e.next {
			e.fail("reset")
		} else if t.Seq-e.next < 65536 {
			object() // RFC 5961 section 3.2
		}
		return
	}
	if t.Flags&packet.SYN != 0 || o.Stamps && int32(o.Time-e.recent) < 0 || t.Seq-e.next+message*messages > 65536 {
		object() // RFC 5961 section 4.2, RFC 7323 section 5.3, RFC 9293 section 3.10.7.4
		return
	}
	own := t.Ack - (e.isn + 1)
	if t.Flags&packet.ACK == 0 || own > message*messages {
		e.t.Fatalf("%s: the other side acknowledges %d bytes: %+v", e.name, int32(own), t)
	}
	e.recent = o.Time
	e.acked = max(e.acked, int(own))
	if len(t.Payload) > 0 {
		if t.Seq == e.next {
			if e.read == 0 {
				e.heard = e.now
			}
			e.read += len(t.Payload)
			e.next += uint32(len(t.Payload))
		}
		answer()
	}
}

func (e *endpoint) fail(why string) {
	e.failed = append(e.failed, fmt.Sprintf("%v %s", e.now.Sub(start), why))
	e.after(10*ms, e.dial)
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: start, table: make(map[tuple]bpf.Leg)}
	session := lease.Session{ID: wire.SessionID{1}, Packet: [2]uint16{blockA, blockB}}
	local := netip.MustParseAddr("203.0.113.9")
	for i, a := range []string{"192.0.2.1", "198.51.100.2"} {
		w.ends[i] = &endpoint{
			world: w, name: [2]string{"a", "bb"}[i],
			address: netip.AddrPortFrom(netip.MustParseAddr(a), 0),
			to:      netip.AddrPortFrom(local, session.Packet[i]+leg.PacketPorts-1),
		}
	}
	w.m = New(Config{
		Expect: func(_ time.Time, source netip.Addr, _ uint16) (lease.Expected, drop.Reason) {
			for i, e := range w.ends {
				if e.address.Addr() == source {
					return lease.Expected{Session: session, Leg: uint8(i)}, drop.None
				}
			}
			return lease.Expected{}, drop.UnknownSource
		},
		Edge:   w,
		Drops:  new(drop.Counters),
		Limits: Limits{Pending: 4, Flows: 100, Quarantined: 100},
	})
	return w
}

// run lets the world go on until both ends are content, at most for d.
func (w *world) run(d time.Duration) bool {
	var tick func()
	tick = func() {
		w.m.Tick(w.now)
		w.after(Interval, tick)
	}
	tick()
	for end := w.now.Add(d); len(w.queue) > 0; {
		next := heap.Pop(&w.queue).(arrival)
		if next.at.After(end) {
			return false
		}
		w.now = next.at
		next.do()
		if w.ends[0].done() && w.ends[1].done() {
			return true
		}
	}
	return false
}

// Two systems with every check of Linux's TCP end up connected, whatever the
// network did before, and with each other: one's messages are what the other
// has read.
func TestTwoSystemsConnectOverAnyNetwork(t *testing.T) {
	seeds := uint64(2000)
	if testing.Short() {
		seeds = 200
	}
	for seed := range seeds {
		w := newWorld(t, seed)
		w.loss = []float64{0, 0.1, 0.3, 0.6}[seed%4]
		w.double = []float64{0, 0.3}[seed/4%2]
		w.spread = []time.Duration{0, 30 * ms, 300 * ms}[seed/8%3]
		w.healed = start.Add(20 * time.Second)
		w.ends[seed/24%2].late = true // TLS: the client speaks first
		w.after(time.Duration(w.rand.Int64N(int64(500*ms))), w.ends[0].dial)
		w.after(time.Duration(w.rand.Int64N(int64(500*ms))), w.ends[1].dial)
		if !w.run(45 * time.Second) {
			for _, e := range w.ends {
				t.Errorf("%s: %d dials, connected %v, read %d, acknowledged %d, %v", e.name, e.dials, e.connected, e.read, e.acked, e.failed)
			}
			t.Fatalf("seed %d: not connected 25 s after the network healed", seed)
		}
		a, b := w.ends[0], w.ends[1]
		if a.next != b.isn+1+message*messages || b.next != a.isn+1+message*messages {
			t.Fatalf("seed %d: connected, but not with each other", seed)
		}
		if a.peerShift != 2 || b.peerShift != 1 {
			t.Fatalf("seed %d: window scales %d and %d, want each the other's", seed, a.peerShift, b.peerShift)
		}
		if w.loss == 0 && w.spread == 0 && (a.dials > 1 || b.dials > 1) {
			t.Fatalf("seed %d: %d and %d dials without any loss, want one each", seed, a.dials, b.dials)
		}
	}
}
