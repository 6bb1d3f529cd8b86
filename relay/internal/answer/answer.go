// Package answer is the TCP handshake of packet mode: both portals dial the
// relay, and the relay answers each SYN for the other side. It reads the two
// SYNs and sends each portal a SYN-ACK built from the other's, so that the two
// systems end up with one TCP connection between them, on which the kernel
// program then rewrites addresses and ports. Neither system, and no firewall on
// the way, sees anything but an ordinary outgoing connection.
//
// The package is a machine: packets and the time come in, and through Edge go
// out packets to send and flows to install. It has no sockets and no clock. Who
// may dial is not its business either: package lease says whose a source is.
//
// # Numbers are the proof
//
// A SYN proves nothing, since its source is easily forged. Who acknowledges the
// other side's sequence number has read the SYN-ACK, so it is at the address
// that the SYN named. When both are there, F, the leg of the session's opener,
// gets its SYN-ACK first, whoever came first: it is the client of TLS and has
// something to say. When it has acknowledged S's number, S gets its SYN-ACK, and
// F's packets follow it at once, so that nothing waits. When S has acknowledged
// F's number, too, the flow is installed. So no table ever holds a leg that is
// not proven; until then each of F's packets passes through here, within bounds.
//
//	F        relay        S
//	|--SYN f-->|             |
//	|          |<--SYN s-----|        both are here:    offered
//	|<-s,ack f-|             |
//	|--ack s-->|             |        F is proven:      crossing
//	|          |--f,ack s--->|
//	|--data--->|--data------>|        by user space
//	|          |<--ack f-----|        S is proven:      installed
//	|<--ack----|             |
//	|<=======================>|       by the kernel
//
// A leg may have several candidates, as its portal may have dialled anew, or
// somebody forges its address. All candidates of F's leg get the SYN-ACK, and who
// acknowledges is F. S is the candidate that showed itself last; if it stays
// silent while there is another, F is reset: it cannot forget S's number, so it
// must dial again. Numbers that were offered and hold no more are answered with
// RST, all other wrong ones with silence.
//
// # What is negotiated
//
// MSS is the other side's (or the default, RFC 9293 section 3.7.1), cut to what
// leaves the relay towards it whole. Window scale, SACK and timestamps are in a
// SYN-ACK if both sides offered them. ECN bits and other options are never,
// and data on a SYN is not acknowledged: it comes again (RFC 7413 section 4.2).
package answer

import (
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
)

// Flow is a connection of packet mode.
type Flow struct {
	Session wire.SessionID
	Pair    bpf.Pair // A is leg 0
}

// Edge does what the machine decides. Its methods are called one at a time,
// borrow what they are given until they return, and must not call the machine.
type Edge interface {
	// Send sends an IP packet as it is.
	Send(packet []byte)
	// Install makes the flow's pair forward. After an error both legs are reset.
	Install(f Flow) error
	// Forward rewrites a packet of the other leg and sends it to this one. It
	// may have been joined from several packets; mss is then the largest
	// segment, options included, that the leg wants, 0 if that is not known.
	// The packet is not to be changed.
	Forward(packet []byte, to bpf.Leg, mss uint16)
	// MTU returns how long an IP packet may be that leaves the relay towards an
	// address whole, or 0 if that is not known.
	MTU(dest netip.Addr) int
}

// Limits bound a Machine. All are at least 1.
type Limits struct {
	Pending     int // slots with a handshake that is not done
	Flows       int // installed ones
	Quarantined int // legs that rest; beyond it the oldest rests no more
}

// Config is what a Machine works with. All fields are required.
type Config struct {
	// Expect is lease.Table's: it says whose a source at a packet port is. It is
	// called with the machine locked and must not call it.
	Expect func(now time.Time, source netip.Addr, port uint16) (lease.Expected, drop.Reason)
	Edge   Edge
	Drops  *drop.Counters
	Limits Limits
}

const (
	// Interval is how often Tick is to be called.
	Interval = 50 * time.Millisecond
	// PendingTime is how long a SYN waits for the other leg's, and how long a
	// handshake may take from F's proof to S's.
	PendingTime = 10 * time.Second
	// QuarantineTime is how long a 4-tuple of a closed flow is kept from other
	// sessions, whose portals might else meet late packets of the old one.
	QuarantineTime = time.Minute

	// maxCandidates is how many 4-tuples of a leg one slot holds.
	maxCandidates = 4
	// maxPackets and maxBytes bound what of F is passed on before S is proven.
	maxPackets = 64
	maxBytes   = 64 << 10
	// silence is how long S may leave its SYN-ACK unanswered while its leg has
	// another candidate: the first timeout of TCP (RFC 6298 section 2.1).
	silence = time.Second
	// pause is the least time between two SYN-ACKs that a candidate gets
	// without having sent anything itself.
	pause = 200 * time.Millisecond
)

// retries are the times after which a SYN-ACK that stays unanswered is sent
// again.
var retries = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Machine answers the handshakes of all sessions. No packet leaves it unusable.
// Its methods may be called from several goroutines; time must not go back.
type Machine struct {
	cfg Config

	mu          sync.Mutex // guards the following
	slots       map[slotKey]*slot
	deadlines   deadlines
	flows       map[tuple]*flow // each flow by both its legs
	sessions    map[wire.SessionID][]*flow
	quarantined quarantine
	room        []byte // for the packet that is sent next
	options     []byte // and its options
}

// New returns a Machine that knows no flows.
func New(cfg Config) *Machine {
	return &Machine{
		cfg:         cfg,
		slots:       make(map[slotKey]*slot),
		flows:       make(map[tuple]*flow),
		sessions:    make(map[wire.SessionID][]*flow),
		quarantined: quarantine{legs: make(map[tuple]resting)},
	}
}

// Handle takes a packet that came to a packet port and was not forwarded: from
// the IP header on, with whatever lies behind it. It borrows the packet.
func (m *Machine) Handle(now time.Time, b []byte) {
	t, why := packet.ParseTCP(b)
	if why == drop.None {
		m.mu.Lock()
		defer m.mu.Unlock()
		why = m.handleLocked(now, t, b)
	}
	m.cfg.Drops.Add(why)
}

func (m *Machine) handleLocked(now time.Time, t packet.TCP, b []byte) drop.Reason {
	from := tupleOf(t)
	if f, ok := m.flows[from]; ok {
		if t.Flags&packet.SYN != 0 {
			return drop.Joined
		}
		m.cfg.Edge.Forward(b, f.other(from).leg(), 0) // it was under way while the flow was installed
		return drop.None
	}
	who, why := m.cfg.Expect(now, t.Source.Addr(), t.Dest.Port())
	if why != drop.None {
		return why
	}
	if m.quarantined.holds(now, from, who.ID) {
		return drop.Quarantined
	}
	key := slotKey{
		session: who.ID,
		number:  uint8(t.Dest.Port() - who.Packet[who.Leg]),
		v6:      t.Version6(),
	}
	switch t.Flags & (packet.SYN | packet.ACK | packet.RST | packet.FIN) {
	case packet.SYN:
		return m.syn(now, key, who.Leg, t)
	case packet.ACK, packet.ACK | packet.FIN:
		return m.segment(now, key, who.Leg, t, b)
	case packet.RST, packet.RST | packet.ACK:
		return m.reset(now, key, who.Leg, t)
	}
	return drop.Malformed
}

// Counts returns how many handshakes are under way and how many flows are
// installed.
func (m *Machine) Counts() (pending, flows int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.slots), len(m.flows) / 2
}
