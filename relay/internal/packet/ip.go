// Package packet reads, builds and changes the IP packets that the relay handles
// in user space: those of packet mode's handshakes, and the few that the kernel
// program could not send on itself. It works on bytes alone, has no sockets, no
// clock and no state.
//
// It reads strictly. IP options, IPv6 extension headers and fragments are not
// read at all: the kernel program never hands them over. What a header says of
// lengths must be so, and what lies behind the packet (Ethernet padding) is cut
// off.
//
// A checksum is right in two forms. One is the sum over all bytes (RFC 9293
// section 3.1). The other is the sum over the pseudo header alone, not
// complemented: so Linux leaves the field for the hardware to complete, and a
// packet that comes over a virtual link from the same machine has it in this
// form, as has one that was joined from several (GSO, GRO). Accepting both lets
// through two in 65,536 damaged packets instead of one. Whatever is built
// or changed here leaves with a full checksum.
package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	header4 = 20 // bytes of an IPv4 header without options
	header6 = 40 // bytes of an IPv6 header

	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58

	// hops is the TTL or hop limit of packets that are built here.
	hops = 64
)

// IP is a packet of which the IP header was read. It borrows the bytes.
type IP struct {
	Source, Dest netip.Addr
	Protocol     uint8
	// Bytes is the packet, cut to the length that its header says.
	Bytes []byte
	// Header is how many of the bytes are the IP header.
	Header int
}

// ParseIP reads the IP header of a packet. It reports false for what the package
// does not read, and for an IPv4 header with a wrong checksum.
func ParseIP(b []byte) (IP, bool) {
	if len(b) < header4 {
		return IP{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return IP{}, false
}

func parse4(b []byte) (IP, bool) {
	length := int(binary.BigEndian.Uint16(b[2:]))
	fragment := binary.BigEndian.Uint16(b[6:]) &^ dontFragment
	if b[0] != 0x45 || length < header4 || length > len(b) || fragment != 0 || fold(sum(b[:header4], 0)) != 0xffff {
		return IP{}, false
	}
	return IP{
		Source:   netip.AddrFrom4([4]byte(b[12:16])),
		Dest:     netip.AddrFrom4([4]byte(b[16:20])),
		Protocol: b[9],
		Bytes:    b[:length],
		Header:   header4,
	}, true
}

// parse6 refuses IPv4-mapped addresses, which no packet on a wire has (RFC 4291
// section 2.5.5.2) and which would be taken for IPv4 ones in tables.
func parse6(b []byte) (IP, bool) {
	if len(b) < header6 {
		return IP{}, false
	}
	length := header6 + int(binary.BigEndian.Uint16(b[4:]))
	p := IP{
		Source:   netip.AddrFrom16([16]byte(b[8:24])),
		Dest:     netip.AddrFrom16([16]byte(b[24:40])),
		Protocol: b[6],
		Header:   header6,
	}
	if length > len(b) || p.Source.Is4In6() || p.Dest.Is4In6() {
		return IP{}, false
	}
	p.Bytes = b[:length]
	return p, true
}

// Transport returns the bytes after the IP header.
func (p IP) Transport() []byte { return p.Bytes[p.Header:] }

// dontFragment is the DF bit (RFC 791 section 3.1).
const dontFragment = 0x4000

// appendIP appends a header for a transport part of the given length, with no
// TOS, no flow label and DF set. Its addresses are of one version.
func appendIP(b []byte, source, dest netip.Addr, protocol uint8, length int) []byte {
	if source.Is4() {
		start := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(header4+length))
		b = append(b, 0, 0, dontFragment>>8, 0, hops, protocol, 0, 0)
		from, to := source.As4(), dest.As4()
		b = append(b, from[:]...)
		b = append(b, to[:]...)
		complete4(b[start:])
		return b
	}
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, protocol, hops)
	from, to := source.As16(), dest.As16()
	b = append(b, from[:]...)
	return append(b, to[:]...)
}

// complete4 writes the checksum of an IPv4 header.
func complete4(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:header4], 0)))
}
