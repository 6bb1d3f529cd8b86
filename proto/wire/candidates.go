package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MaxCandidates bounds the candidates that a portal names at once.
const MaxCandidates = 16

// CandidateTransport is what a candidate is reached by.
type CandidateTransport uint8

// The transports of candidates. One that the receiver does not know means nothing
// to it.
const (
	CandidateUDP CandidateTransport = 1
	CandidateTCP CandidateTransport = 2
)

func (t CandidateTransport) String() string {
	switch t {
	case CandidateUDP:
		return "udp"
	case CandidateTCP:
		return "tcp"
	}
	return fmt.Sprintf("transport %d", uint8(t))
}

// CandidateOrigin is how a portal knows of a candidate.
type CandidateOrigin uint8

// The origins of candidates. One that the receiver does not know is as good as any.
const (
	OriginHost      CandidateOrigin = 1 // an address of one of its interfaces
	OriginReflexive CandidateOrigin = 2 // where a relay or the peer has seen it
	OriginMapped    CandidateOrigin = 3 // its router has mapped it (UPnP, NAT-PMP, PCP)
	OriginLAN       CandidateOrigin = 4 // it was heard on the local network
)

func (o CandidateOrigin) String() string {
	switch o {
	case 0:
		return "seen here"
	case OriginHost:
		return "own address"
	case OriginReflexive:
		return "seen from outside"
	case OriginMapped:
		return "mapped by its router"
	case OriginLAN:
		return "heard on the local network"
	}
	return fmt.Sprintf("origin %d", uint8(o))
}

// Candidate is where a portal may be reached without a relay. It is a hint: nothing
// but probes is sent there before one was answered.
type Candidate struct {
	Transport CandidateTransport
	Origin    CandidateOrigin
	Addr      netip.AddrPort
}

// Candidates are all candidates of its sender, best first; they take the place of
// those of any lower number.
//
//	number     uint32   rises; a list of the same or a lower one means nothing
//	machine    [16]byte which machine the sender runs on, as only its peer can tell; zero:
//	                    it does not say
//	candidates count    at most 16, the rest is not sent
//	  kind     uint8    transport in the lower 4 bits, origin in the upper; neither is 0
//	  address, port     neither is zero
type Candidates struct {
	Number  uint32
	Machine [16]byte
	List    []Candidate
}

// FrameType implements Frame.
func (Candidates) FrameType() FrameType { return FrameCandidates }

// AppendTo implements Frame.
func (m Candidates) AppendTo(b []byte) []byte {
	list := m.List[:min(len(m.List), MaxCandidates)]
	b = append(binary.BigEndian.AppendUint32(b, m.Number), m.Machine[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, c := range list {
		b = AppendAddrPort(append(b, byte(c.Origin)<<4|byte(c.Transport)&0xf), c.Addr)
	}
	return b
}

// ParseCandidates reads a Candidates.
func ParseCandidates(b []byte) (Candidates, error) {
	r := NewReader(b)
	m := Candidates{Number: r.Uint32()}
	r.Copy(m.Machine[:])
	for range r.Count(MaxCandidates, 8) {
		kind := r.Uint8()
		c := Candidate{CandidateTransport(kind & 0xf), CandidateOrigin(kind >> 4), r.AddrPort()}
		if c.Transport == 0 || c.Origin == 0 {
			r.Reject()
		}
		m.List = append(m.List, c)
	}
	return finish(m, &r)
}
