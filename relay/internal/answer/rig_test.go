package answer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// rig is a machine between peers whose packets a test writes by hand. What the
// machine does comes out as lines, in which sequence numbers are told by whose
// they are: "a+1" is the one after a's SYN.
type rig struct {
	*Machine
	t       *testing.T
	now     time.Time
	drops   drop.Counters
	admit   map[netip.Addr]lease.Expected
	mtu     int
	install error

	peers []*peer
	lines []string
	mss   uint16 // of the last packet that was forwarded
	flows []Flow
}

const (
	blockA, blockB = 28672, 28680
	session1       = 1
)

func newRig(t *testing.T) *rig {
	g := &rig{t: t, now: start, admit: make(map[netip.Addr]lease.Expected)}
	g.Machine = New(Config{
		Expect: g.expect,
		Edge:   g,
		Drops:  &g.drops,
		Limits: Limits{Pending: 8, Flows: 4, Quarantined: 100},
	})
	g.session(session1)
	return g
}

// session admits the addresses of all peers as legs of a session: the letter of a
// peer's name is its leg.
func (g *rig) session(n byte) wire.SessionID {
	id := wire.SessionID{n}
	s := lease.Session{ID: id, Packet: [2]uint16{blockA, blockB}}
	for _, a := range []string{"192.0.2.1", "2001:db8:1::1"} {
		g.admit[netip.MustParseAddr(a)] = lease.Expected{Session: s, Leg: 0}
	}
	for _, b := range []string{"198.51.100.2", "2001:db8:2::2"} {
		g.admit[netip.MustParseAddr(b)] = lease.Expected{Session: s, Leg: 1}
	}
	return id
}

func (g *rig) expect(_ time.Time, source netip.Addr, port uint16) (lease.Expected, drop.Reason) {
	who, ok := g.admit[source]
	if !ok || port-who.Packet[who.Leg] >= leg.PacketPorts {
		return lease.Expected{}, drop.UnknownSource
	}
	return who, drop.None
}

func (g *rig) Send(b []byte) {
	t := g.parse(b)
	g.line("%s < %s", g.nameOf(t.Dest), g.show(t))
}

func (g *rig) Install(f Flow) error {
	if g.install != nil {
		return g.install
	}
	g.flows = append(g.flows, f)
	g.line("install %s %s", g.nameOf(f.Pair.A.Remote), g.nameOf(f.Pair.B.Remote))
	return nil
}

func (g *rig) Forward(b []byte, to bpf.Leg, mss uint16) {
	g.mss = mss
	g.line("%s << %s", g.nameOf(to.Remote), g.show(g.parse(b)))
}

func (g *rig) MTU(netip.Addr) int { return g.mtu }

func (g *rig) parse(b []byte) packet.TCP {
	t, why := packet.ParseTCP(b)
	if why != drop.None {
		g.t.Fatalf("the machine made a packet that is %v: %x", why, b)
	}
	return t
}

func (g *rig) line(format string, args ...any) {
	g.lines = append(g.lines, fmt.Sprintf(format, args...))
}

func (g *rig) nameOf(a netip.AddrPort) string {
	for _, p := range g.peers {
		if p.at == a {
			return p.name
		}
	}
	return a.String()
}

func (g *rig) show(t packet.TCP) string {
	var f []string
	for _, flag := range []struct {
		is   packet.Flags
		name string
	}{{packet.SYN, "SYN"}, {packet.FIN, "FIN"}, {packet.RST, "RST"}} {
		if t.Flags&flag.is != 0 {
			f = append(f, flag.name)
		}
	}
	f = append(f, g.number(t.Seq), "ack", g.number(t.Ack))
	if len(t.Payload) > 0 {
		f = append(f, "len", fmt.Sprint(len(t.Payload)))
	}
	return strings.Join(f, " ")
}

func (g *rig) number(n uint32) string {
	for _, p := range slices.Backward(g.peers) {
		if n-p.isn < 1<<20 {
			return fmt.Sprintf("%s+%d", p.name, n-p.isn)
		}
	}
	return fmt.Sprint(n)
}

// want checks what the machine did since the last time.
func (g *rig) want(what string, lines ...string) {
	g.t.Helper()
	if !slices.Equal(g.lines, lines) {
		g.t.Errorf("%s:\n got  %s\n want %s", what, strings.Join(g.lines, "\n      "), strings.Join(lines, "\n      "))
	}
	g.lines = nil
}

func (g *rig) wantDrops(why drop.Reason, n uint64) {
	g.t.Helper()
	if got := g.drops.Count(why); got != n {
		g.t.Errorf("%d dropped because of %v, want %d", got, why, n)
	}
}

// wait lets time pass as the edge's clock would.
func (g *rig) wait(d time.Duration) {
	for end := g.now.Add(d); g.now.Before(end); {
		g.now = g.now.Add(min(Interval, end.Sub(g.now)))
		g.Tick(g.now)
	}
}

// empty checks that nothing of any handshake is left.
func (g *rig) empty() {
	g.t.Helper()
	if n, _ := g.Counts(); n != 0 || len(g.slots) != 0 || len(g.deadlines) != 0 {
		g.t.Errorf("%d slots and %d deadlines are left", len(g.slots), len(g.deadlines))
	}
}

// peer is one socket that dials the relay.
type peer struct {
	*rig
	name  string
	at    netip.AddrPort
	to    netip.AddrPort
	isn   uint32
	offer packet.Offer
	extra []byte // options that come before the offer's
	flags packet.Flags
}

// usual is what Linux offers.
var usual = packet.Offer{MSS: 1460, Scales: true, Shift: 7, SACK: true, Stamps: true, Time: 1000}

// peer makes one: its name begins with "a" or "b", by which it is at leg 0 or 1,
// and ends with "6" for IPv6.
func (g *rig) peer(name string) *peer {
	p := &peer{rig: g, name: name, offer: usual}
	n := len(g.peers)
	p.isn = 0xf0000000 + uint32(n)<<24 // some wrap round
	p.offer.Time += uint32(n) * 1_000_000
	source, local, block := "192.0.2.1", "203.0.113.9", uint16(blockA)
	six := strings.HasSuffix(name, "6")
	if six {
		source, local = "2001:db8:1::1", "2001:db8:9::9"
	}
	if name[0] == 'b' {
		source, block = "198.51.100.2", blockB
		if six {
			source = "2001:db8:2::2"
		}
	}
	p.at = netip.AddrPortFrom(netip.MustParseAddr(source), 40000+uint16(n))
	p.to = netip.AddrPortFrom(netip.MustParseAddr(local), block+3)
	g.peers = append(g.peers, p)
	return p
}

// again makes the same socket dial with a new sequence number, under a new name.
func (p *peer) again(name string) *peer {
	q := *p
	q.name, q.isn = name, p.isn+1<<22
	p.peers = append([]*peer{&q}, p.peers...) // the first match of an address is the newest
	return &q
}

func (p *peer) send(t packet.TCP) {
	t.Source, t.Dest, t.Window = p.at, p.to, 64240
	p.Handle(p.now, packet.AppendTCP(nil, t))
}

func (p *peer) syn() {
	p.send(packet.TCP{Seq: p.isn, Flags: packet.SYN | p.flags, Options: p.offer.AppendTo(slices.Clone(p.extra))})
}

// ack acknowledges the other's SYN, and payload is the first data.
func (p *peer) ack(other *peer, payload int) {
	p.send(packet.TCP{Seq: p.isn + 1, Ack: other.isn + 1, Flags: packet.ACK, Payload: make([]byte, payload)})
}

// reset is how a system answers a SYN-ACK that nobody waits for.
func (p *peer) reset() { p.send(packet.TCP{Seq: p.isn + 1, Flags: packet.RST}) }

// connect brings two peers together and forgets what was done for it.
func (g *rig) connect(f, s *peer) {
	g.t.Helper()
	f.syn()
	s.syn()
	f.ack(s, 0)
	s.ack(f, 0)
	if !slices.ContainsFunc(g.lines, func(l string) bool { return strings.HasPrefix(l, "install") }) {
		g.t.Fatalf("%s and %s are not connected: %v", f.name, s.name, g.lines)
	}
	g.lines = nil
}

var errFull = errors.New("the table is full")
