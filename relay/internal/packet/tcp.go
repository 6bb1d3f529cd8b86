package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/netport/netport/relay/internal/drop"
)

// Flags are the control bits of a TCP header (RFC 9293 section 3.1).
type Flags uint8

// The control bits.
const (
	FIN Flags = 1 << 0
	SYN Flags = 1 << 1
	RST Flags = 1 << 2
	PSH Flags = 1 << 3
	ACK Flags = 1 << 4
	CWR Flags = 1 << 7
)

const (
	tcpHeader = 20 // bytes of a TCP header without options
	udpHeader = 8
)

// TCP is a TCP segment with the addresses that it goes between. Options and
// Payload are borrowed bytes.
type TCP struct {
	Source, Dest netip.AddrPort
	Seq, Ack     uint32
	Flags        Flags
	Window       uint16 // as it is in the header, not scaled
	Options      []byte // at most 40 bytes, a multiple of 4
	Payload      []byte
}

// Next returns the sequence number that follows the segment's.
func (t TCP) Next() uint32 {
	n := t.Seq + uint32(len(t.Payload))
	if t.Flags&SYN != 0 {
		n++
	}
	if t.Flags&FIN != 0 {
		n++
	}
	return n
}

// Version6 reports whether the segment goes over IPv6.
func (t TCP) Version6() bool { return t.Source.Addr().Is6() }

// ParseTCP reads a whole TCP packet and checks its checksums. The reason is None
// for a good one, Malformed or Checksum otherwise. Options are not looked
// into, see ParseOffer.
func ParseTCP(b []byte) (TCP, drop.Reason) {
	p, ok := ParseIP(b)
	if !ok || p.Protocol != protocolTCP {
		return TCP{}, drop.Malformed
	}
	s := p.Transport()
	if len(s) < tcpHeader {
		return TCP{}, drop.Malformed
	}
	start := int(s[12]>>4) * 4
	source, dest := binary.BigEndian.Uint16(s), binary.BigEndian.Uint16(s[2:])
	if start < tcpHeader || start > len(s) || source == 0 || dest == 0 {
		return TCP{}, drop.Malformed
	}
	if !verify(p) {
		return TCP{}, drop.Checksum
	}
	return TCP{
		Source:  netip.AddrPortFrom(p.Source, source),
		Dest:    netip.AddrPortFrom(p.Dest, dest),
		Seq:     binary.BigEndian.Uint32(s[4:]),
		Ack:     binary.BigEndian.Uint32(s[8:]),
		Flags:   Flags(s[13]),
		Window:  binary.BigEndian.Uint16(s[14:]),
		Options: s[tcpHeader:start],
		Payload: s[start:],
	}, drop.None
}

// AppendTCP appends the packet, with full checksums, TTL or hop limit 64 and DF.
// Source and Dest must be of one IP version.
func AppendTCP(b []byte, t TCP) []byte {
	start := len(b)
	source, dest := t.Source.Addr(), t.Dest.Addr()
	b = appendIP(b, source, dest, protocolTCP, tcpHeader+len(t.Options)+len(t.Payload))
	header := len(b) - start
	b = binary.BigEndian.AppendUint16(b, t.Source.Port())
	b = binary.BigEndian.AppendUint16(b, t.Dest.Port())
	b = binary.BigEndian.AppendUint32(b, t.Seq)
	b = binary.BigEndian.AppendUint32(b, t.Ack)
	b = append(b, byte(tcpHeader+len(t.Options))<<2, byte(t.Flags))
	b = binary.BigEndian.AppendUint16(b, t.Window)
	b = append(b, 0, 0, 0, 0)
	b = append(b, t.Options...)
	b = append(b, t.Payload...)
	complete(IP{Protocol: protocolTCP, Bytes: b[start:], Header: header})
	return b
}
