package answer

import (
	"cmp"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/packet"
)

// slotKey names a slot: connection number n of a session uses port n of both
// legs' blocks. Legs of different IP versions never meet.
type slotKey struct {
	session wire.SessionID
	number  uint8 // modulo leg.PacketPorts
	v6      bool
}

// stage is how far the handshake of a slot is.
//
//	waiting  --both legs have a candidate--> offered
//	offered  --a candidate of F's leg acknowledges S's number--> crossing
//	crossing --S acknowledges F's number--> waiting, and the flow is installed
//
// Whatever takes S away in offered, or F or S in crossing, leads back to waiting
// with the candidates that are left.
type stage uint8

const (
	waiting stage = iota
	offered
	crossing
)

// F's leg and S's. Leg 0 is the session's opener, and so the client of TLS, which
// speaks first: it gets its SYN-ACK before the other leg, and what it says
// follows the other's SYN-ACK at once.
const (
	legF = 0
	legS = 1
)

// slot is where two legs meet for one connection.
type slot struct {
	key  slotKey
	legs [2][]*candidate // in the order they came
	syns uint64          // of them all, to tell which is the latest

	stage stage
	f     *candidate // in crossing
	s     *candidate // from offered on

	// In crossing:
	began time.Time
	ends  []uint32 // what S may acknowledge: F's SYN, and the end of each packet that was passed on
	bytes int      // of F's payload that were passed on

	deadline time.Time // when Tick must look at it
	position int       // among the machine's deadlines
}

// candidate is one 4-tuple of a leg, with the SYN that came from it.
type candidate struct {
	tuple  tuple
	isn    uint32
	window uint16
	offer  packet.Offer
	latest uint64    // its last SYN, counted in those of the slot
	seen   time.Time // when that was
	mss    uint16    // the largest segment that may be sent to it; 0: not asked yet

	// sent are the sequence numbers of the SYN-ACKs that it got, the last one
	// first. One that it acknowledges is either the valid one or reset.
	sent  []uint32
	last  time.Time // when it got the last one
	due   time.Time // when it gets it again; zero: when it asks
	tries int
}

// find returns the leg's candidate of that 4-tuple, or nil.
func (s *slot) find(leg uint8, from tuple) *candidate {
	for _, c := range s.legs[leg] {
		if c.tuple == from {
			return c
		}
	}
	return nil
}

// remove takes a candidate out, and the slot back to waiting if it was one of
// those that the handshake is about.
func (s *slot) remove(leg uint8, c *candidate) {
	s.legs[leg] = slices.DeleteFunc(s.legs[leg], func(o *candidate) bool { return o == c })
	if c == s.f || c == s.s || s.stage == offered && len(s.legs[legF]) == 0 {
		s.wait()
	}
}

// removeBoth takes F and S out.
func (s *slot) removeBoth() {
	f, second := s.f, s.s
	s.remove(legF, f)
	s.remove(legS, second)
}

func (s *slot) wait() {
	s.stage, s.f, s.s = waiting, nil, nil
	s.ends, s.bytes = nil, 0
}

// add puts a candidate in; if there are too many, in the place of the oldest that
// the handshake is not about. It reports whether one had to go.
func (s *slot) add(leg uint8, c *candidate) bool {
	full := len(s.legs[leg]) >= maxCandidates
	if full {
		i := slices.IndexFunc(s.legs[leg], func(o *candidate) bool { return o != s.f && o != s.s })
		s.remove(leg, s.legs[leg][i])
	}
	s.legs[leg] = append(s.legs[leg], c)
	return full
}

// meet picks S once both legs have a candidate. It reports whether there is
// anything to offer.
func (s *slot) meet() bool {
	if s.stage != waiting {
		return s.stage == offered
	}
	if len(s.legs[legF]) == 0 || len(s.legs[legS]) == 0 {
		return false
	}
	s.stage = offered
	s.s = slices.MaxFunc(s.legs[legS], func(x, y *candidate) int { return cmp.Compare(x.latest, y.latest) })
	return true
}

// cross makes c, which has acknowledged S's number, F.
func (s *slot) cross(now time.Time, c *candidate) {
	s.stage, s.f, s.began = crossing, c, now
	s.ends = []uint32{c.isn + 1}
}

// next returns what follows the last sequence number of F that was passed on.
func (s *slot) next() uint32 {
	last := s.ends[0]
	for _, end := range s.ends {
		if int32(end-last) > 0 {
			last = end
		}
	}
	return last
}

// acknowledged reports, in crossing, whether c, F or S, proves with this number
// that it has read what the other side sent. S may not acknowledge just anything
// within, so that guessing does not become easier with every packet of F.
func (s *slot) acknowledged(c *candidate, ack uint32) bool {
	return c == s.f && ack == s.s.isn+1 || c == s.s && slices.Contains(s.ends, ack)
}

// knows reports whether the candidate was ever sent that sequence number.
func (c *candidate) knows(isn uint32) bool { return slices.Contains(c.sent, isn) }

// holds reports whether the candidate was sent the number last.
func (c *candidate) holds(isn uint32) bool { return len(c.sent) > 0 && c.sent[0] == isn }

// note remembers a SYN-ACK that the candidate gets now.
func (c *candidate) note(now time.Time, isn uint32) {
	if !c.holds(isn) {
		if len(c.sent) == maxCandidates {
			c.sent = c.sent[:maxCandidates-1]
		}
		c.sent = slices.Insert(c.sent, 0, isn)
		c.tries = 0
	}
	c.last, c.due = now, time.Time{}
	if c.tries < len(retries) {
		c.due = now.Add(retries[c.tries])
		c.tries++
	}
}

// follows reports whether seq lies in the first window after a SYN: no sender may
// be further before it has read anything from the other side.
func follows(seq, isn uint32) bool { return seq-(isn+1) <= 0xffff }
