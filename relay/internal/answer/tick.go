package answer

import (
	"container/heap"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// Tick does what is due: it sends SYN-ACKs again that nobody answered, gives up
// on who stays silent, and lets go of legs that have rested. It is to be called
// every Interval.
func (m *Machine) Tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quarantined.expire(now)
	for len(m.deadlines) > 0 && !m.deadlines[0].deadline.After(now) {
		s := m.deadlines[0]
		if s.stage == crossing {
			m.tickCrossing(now, s)
		} else {
			m.tickCandidates(now, s)
		}
		m.settle(now, s)
		if s.position == 0 && !s.deadline.After(now) { // it is never to be looked at twice
			s.deadline = now.Add(Interval)
			m.deadlines.put(s)
		}
	}
}

// tickCrossing sees to an S that has not answered.
func (m *Machine) tickCrossing(now time.Time, s *slot) {
	m.expire(now, s)
	waited := now.Sub(s.began)
	others := len(s.legs[legS]) > 1
	switch {
	case waited >= PendingTime || others && waited >= silence:
		m.resetF(s)
		m.cfg.Drops.Add(drop.HandshakeTimeout)
	case due(s.s, now):
		m.synAck(now, s.s, s.f)
	}
}

// tickCandidates sees to those who wait.
func (m *Machine) tickCandidates(now time.Time, s *slot) {
	m.expire(now, s)
	if s.stage != offered {
		return
	}
	for _, c := range s.legs[legF] {
		if due(c, now) {
			m.synAck(now, c, s.s)
		}
	}
}

func due(c *candidate, now time.Time) bool { return !c.due.IsZero() && !c.due.After(now) }

// expire drops candidates of which nothing was heard for too long. One that got
// a SYN-ACK may think that it is connected: it is told.
func (m *Machine) expire(now time.Time, s *slot) {
	for leg := range uint8(2) {
		for i := 0; i < len(s.legs[leg]); {
			c := s.legs[leg][i]
			if s.stage == crossing && (c == s.f || c == s.s) || now.Sub(c.seen) < PendingTime {
				i++
				continue
			}
			if len(c.sent) > 0 {
				m.resetTo(c, c.sent[0]+1, c.isn+1)
			}
			s.remove(leg, c)
			m.cfg.Drops.Add(drop.WaitTimeout)
		}
	}
}

// due returns when the slot's next deadline is.
func (s *slot) due() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for leg := range s.legs {
		for _, c := range s.legs[leg] {
			if s.stage == crossing && (c == s.f || c == s.s) {
				continue
			}
			sooner(c.seen.Add(PendingTime))
			if s.stage == offered && leg == legF {
				sooner(c.due)
			}
		}
	}
	if s.stage == crossing {
		sooner(s.began.Add(PendingTime))
		sooner(s.s.due)
		if len(s.legs[legS]) > 1 {
			sooner(s.began.Add(silence))
		}
	}
	return next
}

func (m *Machine) endSlots(session wire.SessionID) {
	for number := range uint8(leg.PacketPorts) {
		for _, v6 := range []bool{false, true} {
			if s, ok := m.slots[slotKey{session, number, v6}]; ok {
				delete(m.slots, s.key)
				m.deadlines.remove(s)
			}
		}
	}
}

// deadlines is a heap of all slots, the one with the earliest deadline first.
type deadlines []*slot

// put puts a slot where its deadline belongs.
func (d *deadlines) put(s *slot) {
	if s.position < 0 {
		heap.Push(d, s)
		return
	}
	heap.Fix(d, s.position)
}

func (d *deadlines) remove(s *slot) {
	if s.position >= 0 {
		heap.Remove(d, s.position)
	}
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].position, d[j].position = i, j
}

// Push and Pop are for package heap.
func (d *deadlines) Push(x any) {
	s := x.(*slot)
	s.position = len(*d)
	*d = append(*d, s)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	s := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	s.position = -1
	return s
}
