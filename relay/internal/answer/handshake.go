package answer

import (
	"time"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// syn takes a SYN: a new candidate, or one that has not heard its SYN-ACK.
func (m *Machine) syn(now time.Time, key slotKey, leg uint8, t packet.TCP) drop.Reason {
	offer, ok := packet.ParseOffer(t.Options)
	if !ok {
		return drop.Malformed
	}
	s, ok := m.slots[key]
	if !ok {
		if len(m.slots) >= m.cfg.Limits.Pending {
			return drop.Limit
		}
		s = &slot{key: key, position: -1}
		m.slots[key] = s
	}
	defer m.settle(now, s)

	s.syns++
	c := s.find(leg, tupleOf(t))
	if c != nil && c.isn == t.Seq {
		c.latest, c.seen, c.offer.Time = s.syns, now, offer.Time
		m.repeat(now, s, c)
		return drop.None
	}
	why := drop.None
	switch {
	case c == nil:
	case c == s.f: // proven, unlike this SYN
		return drop.WrongNumbers
	case c == s.s && s.stage == crossing:
		m.resetF(s)
	default:
		s.remove(leg, c)
	}
	c = &candidate{tuple: tupleOf(t), isn: t.Seq, window: t.Window, offer: offer, latest: s.syns, seen: now}
	if s.add(leg, c) {
		why = drop.Evicted
	}
	return why
}

// repeat answers a SYN that came again. While F has not acknowledged S's number,
// a SYN of S says that F may not have heard it.
func (m *Machine) repeat(now time.Time, s *slot, c *candidate) {
	switch {
	case s.stage == crossing && c == s.f:
		m.synAck(now, s.f, s.s)
	case s.stage == crossing && c == s.s:
		m.synAck(now, s.s, s.f)
	case s.stage == offered && c == s.s:
		for _, f := range s.legs[legF] {
			if now.Sub(f.last) >= pause {
				m.synAck(now, f, s.s)
			}
		}
	case s.stage == offered && c.holds(s.s.isn):
		m.synAck(now, c, s.s)
	}
}

// settle follows every change of a slot: it makes the legs meet, offers S to
// those who have not heard of it, and puts the slot where Tick finds it, or
// forgets it when nobody is left.
func (m *Machine) settle(now time.Time, s *slot) {
	if s.meet() {
		for _, c := range s.legs[legF] {
			if !c.holds(s.s.isn) {
				m.synAck(now, c, s.s)
			}
		}
	}
	if len(s.legs[0])+len(s.legs[1]) == 0 {
		delete(m.slots, s.key)
		m.deadlines.remove(s)
		return
	}
	s.deadline = s.due()
	m.deadlines.put(s)
}

// segment takes a packet with ACK and without SYN and RST. It may prove its
// sender.
func (m *Machine) segment(now time.Time, key slotKey, leg uint8, t packet.TCP, b []byte) drop.Reason {
	s, c := m.candidate(key, leg, t)
	if c == nil {
		return drop.UnknownSource
	}
	defer m.settle(now, s)
	if !follows(t.Seq, c.isn) {
		return drop.WrongNumbers
	}
	switch {
	case s.stage == offered && leg == legF && c.holds(s.s.isn) && t.Ack == s.s.isn+1:
		s.cross(now, c)
		m.synAck(now, s.s, s.f)
		return m.pass(s, t, b)
	case s.stage == crossing && s.acknowledged(c, t.Ack):
		if c == s.f {
			return m.pass(s, t, b)
		}
		return m.install(s, t, b)
	case c.knows(t.Ack - 1): // of an S that is gone, or another was faster
		m.resetTo(c, t.Ack, t.Next())
		if s.stage == crossing && c == s.s {
			m.resetF(s)
		} else {
			s.remove(leg, c)
		}
	}
	return drop.WrongNumbers
}

// pass sends a packet of F on to S, which is not proven yet.
func (m *Machine) pass(s *slot, t packet.TCP, b []byte) drop.Reason {
	if len(s.ends) > maxPackets || s.bytes+len(t.Payload) > maxBytes {
		return drop.Limit
	}
	s.bytes += len(t.Payload)
	s.ends = append(s.ends, t.Next())
	m.forward(b, s.s)
	return drop.None
}

// install hands the flow to the data plane. b is the packet that proved S.
func (m *Machine) install(s *slot, t packet.TCP, b []byte) drop.Reason {
	f, second := s.f, s.s
	var legs [2]tuple
	legs[legF], legs[legS] = f.tuple, second.tuple
	pair := bpf.Pair{Protocol: bpf.TCP, A: legs[0].leg(), B: legs[1].leg()}
	if len(m.flows)/2 >= m.cfg.Limits.Flows || m.cfg.Edge.Install(Flow{Session: s.key.session, Pair: pair}) != nil {
		m.resetTo(second, t.Ack, t.Next())
		m.resetF(s)
		return drop.Limit
	}
	m.keep(s.key.session, legs)
	s.removeBoth()
	m.forward(b, f)
	return drop.None
}

// reset takes an RST. A system whose portal has given up sends it in answer to
// the SYN-ACK. The other side is told if it may be connected.
func (m *Machine) reset(now time.Time, key slotKey, leg uint8, t packet.TCP) drop.Reason {
	s, c := m.candidate(key, leg, t)
	if c == nil {
		return drop.UnknownSource
	}
	defer m.settle(now, s)
	exact := t.Seq == c.isn+1 || c == s.f && t.Seq == s.next()
	proven := t.Flags&packet.ACK != 0 && s.stage == crossing && follows(t.Seq, c.isn) && s.acknowledged(c, t.Ack)
	switch {
	case !exact && !proven:
		return drop.WrongNumbers
	case c == s.f:
		m.resetTo(s.s, s.next(), s.s.isn+1)
		s.removeBoth()
	case c == s.s && s.stage == crossing:
		m.resetF(s)
	default:
		s.remove(leg, c)
	}
	return drop.None
}

// resetF ends the handshake in crossing: F must dial again, as it cannot forget
// S's number.
func (m *Machine) resetF(s *slot) {
	m.resetTo(s.f, s.s.isn+1, s.next())
	s.removeBoth()
}

// candidate returns whose packet it is, or nil.
func (m *Machine) candidate(key slotKey, leg uint8, t packet.TCP) (*slot, *candidate) {
	s, ok := m.slots[key]
	if !ok {
		return nil, nil
	}
	return s, s.find(leg, tupleOf(t))
}
