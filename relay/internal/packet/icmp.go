package packet

import (
	"encoding/binary"
)

const (
	unreachable    = 3 // ICMP type: destination unreachable
	fragmentNeeded = 4 // its code: fragmentation needed and DF set
	tooBig6        = 2 // ICMPv6 type: packet too big
	icmpHeader     = 8

	// An error quotes as much of the packet as keeps it this long: what every
	// link carries (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 c).
	maxError4, maxError6 = 576, 1280
	// No error says less than this (RFC 791, RFC 8200 section 5): a smaller MTU
	// only slows a sender down.
	minMTU4, minMTU6 = 576, 1280
)

// AppendTooBig appends the answer to a packet that is larger than the link
// towards its receiver: ICMP "fragmentation needed" (RFC 1191 section 4) or
// ICMPv6 "packet too big" (RFC 4443 section 3.2). It goes from the address that
// the packet was sent to, back to its source, and quotes it as it came, so
// that the source knows its flow. It reports false, and appends nothing, if the
// packet is no TCP or UDP one.
func AppendTooBig(b, packet []byte, mtu int) ([]byte, bool) {
	p, ok := ParseIP(packet)
	if !ok || p.Protocol != protocolTCP && p.Protocol != protocolUDP {
		return b, false
	}
	start := len(b)
	if p.Header == header4 {
		quote := p.Bytes[:min(len(p.Bytes), maxError4-header4-icmpHeader)]
		b = appendIP(b, p.Dest, p.Source, protocolICMP, icmpHeader+len(quote))
		message := len(b)
		b = append(b, unreachable, fragmentNeeded, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(min(max(mtu, minMTU4), 0xffff)))
		b = append(b, quote...)
		binary.BigEndian.PutUint16(b[message+2:], ^fold(sum(b[message:], 0)))
		return b, true
	}
	quote := p.Bytes[:min(len(p.Bytes), maxError6-header6-icmpHeader)]
	b = appendIP(b, p.Dest, p.Source, protocolICMPv6, icmpHeader+len(quote))
	message := len(b)
	b = append(b, tooBig6, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(max(mtu, minMTU6)))
	b = append(b, quote...)
	q := IP{Protocol: protocolICMPv6, Bytes: b[start:], Header: header6}
	binary.BigEndian.PutUint16(b[message+2:], ^fold(sum(b[message:], pseudo(q))))
	return b, true
}
