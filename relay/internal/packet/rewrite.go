package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/netport/netport/relay/internal/drop"
)

// Rewrite makes the packet one from source to dest, in place: addresses, ports,
// one hop less (RFC 1812 section 5.3.1), checksums. It does what the kernel
// program does (RFC 1624 for the transport's checksum, so that damage stays
// visible to the receiver), but completes a checksum that was left to hardware.
// Source and dest must be of the packet's IP version, else it is Malformed. It
// returns the packet without what lies behind it.
func Rewrite(b []byte, source, dest netip.AddrPort) ([]byte, drop.Reason) {
	p, ok := ParseIP(b)
	if !ok || p.Source.Is4() != dest.Addr().Is4() || p.Source.Is4() != source.Addr().Is4() {
		return nil, drop.Malformed
	}
	at, ok := field(p)
	if !ok {
		return nil, drop.Malformed
	}
	left := &p.Bytes[8]
	if p.Header == header6 {
		left = &p.Bytes[7]
	}
	if *left <= 1 {
		return nil, drop.TTL
	}
	*left--

	checksum := binary.BigEndian.Uint16(at)
	if p.Protocol == protocolUDP && checksum == 0 && p.Header == header6 {
		return nil, drop.Checksum // RFC 8200 section 8.1
	}
	none := p.Protocol == protocolUDP && checksum == 0
	before := pseudo(p)
	partial := !none && checksum == fold(before)
	ports := p.Transport()[:4]
	before = sum(ports, before)
	setAddresses(p, source.Addr(), dest.Addr())
	binary.BigEndian.PutUint16(ports, source.Port())
	binary.BigEndian.PutUint16(ports[2:], dest.Port())
	switch {
	case none:
	case partial:
		complete(p)
	default:
		after := sum(ports, pseudo(p))
		checksum = ^fold(uint64(^checksum) + uint64(^fold(before)) + uint64(fold(after)))
		if checksum == 0 && p.Protocol == protocolUDP {
			checksum = 0xffff
		}
		binary.BigEndian.PutUint16(at, checksum)
	}
	if p.Header == header4 {
		complete4(p.Bytes)
	}
	return p.Bytes, drop.None
}

func setAddresses(p IP, source, dest netip.Addr) {
	if p.Header == header4 {
		from, to := source.As4(), dest.As4()
		copy(p.Bytes[12:], from[:])
		copy(p.Bytes[16:], to[:])
		return
	}
	from, to := source.As16(), dest.As16()
	copy(p.Bytes[8:], from[:])
	copy(p.Bytes[24:], to[:])
}
