// Package proxyheader writes the header of the PROXY protocol, which tells a
// target who its client is (haproxy.org, "The PROXY protocol", versions 1 and
// 2). It only writes: Netport never believes such a header.
package proxyheader

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// AppendV1 appends the header of version 1: one line of text of at most 107
// bytes. A source that is not known, or not of the family of the destination,
// is sent as UNKNOWN.
func AppendV1(b []byte, source, destination netip.AddrPort) []byte {
	if !known(source, destination) {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	family := "TCP6"
	if source.Addr().Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, source.Addr(), destination.Addr(), source.Port(), destination.Port())
}

const (
	signature   = "\r\n\r\n\x00\r\nQUIT\n"
	versionMask = 0x20
	cmdProxy    = 0x01
	famUnspec   = 0x00
	famTCP4     = 0x11
	famTCP6     = 0x21
)

// AppendV2 appends the binary header of version 2. A source that is not known,
// or not of the family of the destination, is sent as UNSPEC without
// addresses: the connection is a client's all the same, not the proxy's own.
func AppendV2(b []byte, source, destination netip.AddrPort) []byte {
	b = append(append(b, signature...), versionMask|cmdProxy)
	if !known(source, destination) {
		return append(b, famUnspec, 0, 0)
	}
	from, to := source.Addr().AsSlice(), destination.Addr().AsSlice()
	family := byte(famTCP6)
	if len(from) == 4 {
		family = famTCP4
	}
	b = append(b, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(from)+len(to)+4))
	b = append(append(b, from...), to...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, destination.Port())
}

func known(source, destination netip.AddrPort) bool {
	return source.IsValid() && destination.IsValid() && source.Addr().Is4() == destination.Addr().Is4() &&
		!source.Addr().Is4In6() && !destination.Addr().Is4In6() && source.Addr().Zone() == "" && destination.Addr().Zone() == ""
}
