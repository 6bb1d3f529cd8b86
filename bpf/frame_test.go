package bpf

import (
	"encoding/binary"
	"net/netip"
)

// The packet tests build whole frames from what is in them, with checksums
// computed over everything: what the program must send is built in the same way
// as what it gets, and never by changing a sum.

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd

	ethernetHeader = 14

	protocolICMP   = 1
	protocolICMPv6 = 58

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
)

type mac [6]byte

// segment is a TCP segment or UDP datagram in a frame.
type segment struct {
	toMAC, fromMAC mac
	from, to       netip.AddrPort
	protocol       Protocol
	ttl            uint8
	ecn            uint8
	payload        []byte
	flags          uint8  // TCP's
	options        []byte // TCP's, a multiple of 4 bytes
	unchecked      bool   // UDP without a checksum
}

// frame builds the frame.
func (s segment) frame() []byte {
	return ethernet(s.toMAC, s.fromMAC, ip(s.from.Addr(), s.to.Addr(), uint8(s.protocol), s.ttl, s.ecn, s.transport()))
}

func (s segment) transport() []byte {
	var b []byte
	at := 6
	if s.protocol == TCP {
		b = make([]byte, 20, 20+len(s.options)+len(s.payload))
		binary.BigEndian.PutUint32(b[4:], 0x01020304)
		binary.BigEndian.PutUint32(b[8:], 0xa1b2c3d4)
		b[12] = uint8(5+len(s.options)/4) << 4
		b[13] = s.flags
		binary.BigEndian.PutUint16(b[14:], 0x2000)
		b = append(b, s.options...)
		at = 16
	} else {
		b = make([]byte, 8, 8+len(s.payload))
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(s.payload)))
	}
	binary.BigEndian.PutUint16(b[0:], s.from.Port())
	binary.BigEndian.PutUint16(b[2:], s.to.Port())
	b = append(b, s.payload...)
	if s.protocol == UDP && s.unchecked {
		return b
	}
	check := checksum(pseudo(s.from.Addr(), s.to.Addr(), uint8(s.protocol), len(b)), b)
	if s.protocol == UDP && check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], check)
	return b
}

func ethernet(to, from mac, packet []byte) []byte {
	b := make([]byte, 0, ethernetHeader+len(packet))
	b = append(append(b, to[:]...), from[:]...)
	kind := uint16(typeIPv4)
	if packet[0]>>4 == 6 {
		kind = typeIPv6
	}
	return append(binary.BigEndian.AppendUint16(b, kind), packet...)
}

// ip puts an IP header without options in front of a payload.
func ip(from, to netip.Addr, protocol, ttl, ecn uint8, payload []byte) []byte {
	if from.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[1] = 0x45, ecn
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		binary.BigEndian.PutUint16(b[4:], 0x1d0f)
		b[6] = 0x40 // don't fragment
		b[8], b[9] = ttl, protocol
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		fixIPv4(b)
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[1] = 0x60|ecn>>4, ecn<<4|0x7
	b[2], b[3] = 0x12, 0x34
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, ttl
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, payload...)
}

// fixIPv4 computes the header's checksum anew, whatever its length says.
func fixIPv4(packet []byte) {
	header := packet[:min(len(packet), max(20, int(packet[0]&0xf)*4))]
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], checksum(nil, header))
}

// pseudo is the header that transport checksums start with (RFC 9293 section
// 3.1, RFC 8200 section 8.1).
func pseudo(from, to netip.Addr, protocol uint8, length int) []byte {
	b := append(from.AsSlice(), to.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return binary.BigEndian.AppendUint32(b, uint32(protocol))
}

// checksum is the Internet checksum (RFC 1071) over both parts.
func checksum(first, second []byte) uint16 {
	sum := uint64(0)
	for _, b := range [2][]byte{first, second} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint64(b[0])<<8 | uint64(b[1])
		}
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// icmpError is an ICMP or ICMPv6 error in a frame.
type icmpError struct {
	toMAC, fromMAC mac
	from, to       netip.Addr
	ttl            uint8
	kind, code     uint8
	rest           uint32 // the second word: for some the MTU
	quote          []byte // from the quoted IP header on
}

func (e icmpError) frame() []byte {
	b := binary.BigEndian.AppendUint32([]byte{e.kind, e.code, 0, 0}, e.rest)
	b = append(b, e.quote...)
	protocol, sum := uint8(protocolICMP), []byte(nil)
	if e.from.Is6() {
		protocol = protocolICMPv6
		sum = pseudo(e.from, e.to, protocol, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], checksum(sum, b))
	return ethernet(e.toMAC, e.fromMAC, ip(e.from, e.to, protocol, e.ttl, 0, b))
}
