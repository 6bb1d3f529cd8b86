package packet

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to an Internet checksum in progress (RFC 1071). Only the last call
// for a checksum may bring an odd number of bytes.
func sum(b []byte, s uint64) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		var carry uint64
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), 0)
		s += carry // cannot overflow: s is not all ones after a carry
	}
	rest := uint64(0) // at most 7 bytes: no overflow
	for ; len(b) >= 2; b = b[2:] {
		rest += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		rest += uint64(b[0]) << 8
	}
	s, carry := bits.Add64(s, rest, 0)
	return s + carry
}

// fold brings a sum down to 16 bits.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo returns the sum over the pseudo header of a transport part (RFC 9293
// section 3.1, RFC 8200 section 8.1).
func pseudo(p IP) uint64 {
	addresses := p.Bytes[12:20]
	if p.Header == header6 {
		addresses = p.Bytes[8:40]
	}
	return sum(addresses, uint64(p.Protocol)+uint64(len(p.Bytes)-p.Header))
}

// field returns where the transport's checksum is, or false if the protocol is
// not TCP or UDP or its header is cut off.
func field(p IP) ([]byte, bool) {
	t := p.Transport()
	switch {
	case p.Protocol == protocolTCP && len(t) >= tcpHeader:
		return t[16:18], true
	case p.Protocol == protocolUDP && len(t) >= udpHeader:
		return t[6:8], true
	}
	return nil, false
}

// verify reports whether the transport's checksum is right in one of its two
// forms.
func verify(p IP) bool {
	at, ok := field(p)
	if !ok {
		return false
	}
	s := pseudo(p)
	return binary.BigEndian.Uint16(at) == fold(s) || fold(sum(p.Transport(), s)) == 0xffff
}

// complete writes the transport's checksum anew, over all bytes.
func complete(p IP) {
	at, ok := field(p)
	if !ok {
		return
	}
	at[0], at[1] = 0, 0
	c := ^fold(sum(p.Transport(), pseudo(p)))
	if c == 0 && p.Protocol == protocolUDP {
		c = 0xffff // 0 says that there is no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(at, c)
}
