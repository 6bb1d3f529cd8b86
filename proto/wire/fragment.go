package wire

import "encoding/binary"

// Fragment is a datagram of a flow, or a part of one, as a QUIC carrier sends it
// in one DATAGRAM frame (RFC 9221):
//
//	kind   uint8   0 whole, 1 part
//	stream uint32  number of the flow
//	number uint32  parts only: which datagram of the sender's on this carrier this is part of
//	length uint16  parts only: of the whole datagram, at most 65,507
//	offset uint16  parts only: of the first byte here
//	data   rest    all of a datagram; or a part, never the whole, of at least
//	               MinPart bytes but for the last one
//
// Parts may come in any order. A receiver puts them together within its bounds
// and gives up a datagram of which a part is missing for too long. Bytes that it
// has already it takes for a repetition and drops.
type Fragment struct {
	Stream uint32
	Part   bool
	Number uint32
	Length int
	Offset int
	Data   []byte
}

const (
	// WholeHeaderLen is how many bytes stand before a whole datagram.
	WholeHeaderLen = 1 + 4
	// PartHeaderLen is how many bytes stand before a part.
	PartHeaderLen = WholeHeaderLen + 4 + 2 + 2
	// MinPart is the least length of a part that is not the last of its
	// datagram: no datagram has more than 64.
	MinPart = 1024

	fragmentWhole = 0
	fragmentPart  = 1
)

// AppendTo appends the encoding of m.
func (m Fragment) AppendTo(b []byte) []byte {
	kind := byte(fragmentWhole)
	if m.Part {
		kind = fragmentPart
	}
	b = binary.BigEndian.AppendUint32(append(b, kind), m.Stream)
	if m.Part {
		b = binary.BigEndian.AppendUint32(b, m.Number)
		b = binary.BigEndian.AppendUint16(b, uint16(m.Length))
		b = binary.BigEndian.AppendUint16(b, uint16(m.Offset))
	}
	return append(b, m.Data...)
}

// ParseFragment reads a Fragment. Its Data shares memory with b.
func ParseFragment(b []byte) (Fragment, error) {
	r := NewReader(b)
	kind := r.Uint8()
	m := Fragment{Stream: r.Uint32(), Part: kind == fragmentPart}
	if m.Part {
		m.Number, m.Length, m.Offset = r.Uint32(), int(r.Uint16()), int(r.Uint16())
	}
	m.Data = r.Rest()
	end := m.Offset + len(m.Data)
	switch {
	case kind > fragmentPart || m.Stream == 0 || len(m.Data) > MaxDatagram:
		r.Reject()
	case !m.Part:
		m.Length = len(m.Data)
	case m.Length > MaxDatagram || end > m.Length || len(m.Data) == 0 || len(m.Data) == m.Length ||
		len(m.Data) < MinPart && end < m.Length:
		r.Reject()
	}
	return finish(m, &r)
}
