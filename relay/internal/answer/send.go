package answer

import (
	"time"

	"github.com/netport/netport/relay/internal/packet"
)

const (
	headers4, headers6 = 40, 60 // bytes of IP and TCP header without options

	// The MSS of a SYN that has none (RFC 9293 section 3.7.1).
	defaultMSS4, defaultMSS6 = 536, 1220
)

// synAck answers c's SYN with p's.
func (m *Machine) synAck(now time.Time, c, p *candidate) {
	c.note(now, p.isn)
	m.options = packet.Offer{
		MSS:      m.mss(p),
		Scales:   c.offer.Scales && p.offer.Scales,
		Shift:    p.offer.Shift,
		SACK:     c.offer.SACK && p.offer.SACK,
		Stamps:   c.offer.Stamps && p.offer.Stamps,
		Time:     p.offer.Time,
		EchoTime: c.offer.Time,
	}.AppendTo(m.options[:0])
	m.send(c, packet.TCP{
		Seq: p.isn, Ack: c.isn + 1,
		Flags:   packet.SYN | packet.ACK,
		Window:  p.window,
		Options: m.options,
	})
}

// resetTo tells c that its connection is over. seq is the number that it
// expects, ack what follows its own last one: so it is taken while c waits for
// its SYN-ACK, and after (RFC 9293 section 3.10.7).
func (m *Machine) resetTo(c *candidate, seq, ack uint32) {
	m.send(c, packet.TCP{Seq: seq, Ack: ack, Flags: packet.RST | packet.ACK})
}

func (m *Machine) send(c *candidate, t packet.TCP) {
	t.Source, t.Dest = c.tuple.ends()
	m.room = packet.AppendTCP(m.room[:0], t)
	m.cfg.Edge.Send(m.room)
}

// forward rewrites a packet of the other side for c. A portal that claims to take
// only tiny segments shall not have one packet become a thousand.
func (m *Machine) forward(b []byte, c *candidate) {
	m.cfg.Edge.Forward(b, c.tuple.leg(), max(m.mss(c), defaultMSS4))
}

// mss returns the largest segment that may be sent to p: what it wants, cut to
// what leaves the relay whole.
func (m *Machine) mss(p *candidate) uint16 {
	if p.mss != 0 {
		return p.mss
	}
	remote, _ := p.tuple.remote()
	headers, least := headers4, defaultMSS4
	p.mss = defaultMSS4
	if remote.Is6() {
		headers, least = headers6, defaultMSS6
		p.mss = defaultMSS6
	}
	if p.offer.MSS != 0 {
		p.mss = p.offer.MSS
	}
	// A limit below what every link carries is not believed.
	if mtu := m.cfg.Edge.MTU(remote); mtu > 0 {
		p.mss = uint16(min(int(p.mss), max(mtu-headers, least)))
	}
	return p.mss
}
