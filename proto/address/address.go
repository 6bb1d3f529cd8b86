// Package address says what an IP address really means: whether it is
// loopback, link-local, a cloud's metadata service or the like, also where an
// IPv4 address hides inside an IPv6 one. The exit asks it before it dials a
// target, and the path before it dials a relay. It knows no policy.
package address

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Kind is what an address is, as far as it matters for dialling it.
type Kind uint8

// The kinds. Only Ordinary is an address that a name may lead to.
const (
	Ordinary    Kind = iota // a host of some network, public or private
	Loopback                // this machine: 127.0.0.0/8, ::1
	Metadata                // where clouds hand out credentials to whoever asks from inside
	LinkLocal               // 169.254.0.0/16, fe80::/10, the old fec0::/10, and anything with a zone
	Multicast               // and broadcast
	Unspecified             // 0.0.0.0/8, ::, which many systems take for this machine
	Reserved                // 240.0.0.0/4 without broadcast; no host has such an address
)

func (k Kind) String() string {
	return [...]string{"ordinary", "loopback", "metadata", "link-local", "multicast or broadcast", "unspecified", "reserved"}[k]
}

// metadata lists the addresses where cloud providers answer every process of
// a machine with its credentials and its configuration.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, Azure, Google, OpenStack, most others
	netip.MustParseAddr("169.254.170.2"),   // AWS containers
	netip.MustParseAddr("169.254.170.23"),  // AWS EKS pods
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure's wire server
	netip.MustParseAddr("192.0.0.192"),     // Oracle, classic
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd00:ec2::23"),    // AWS EKS pods
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("fd00:42::42"),     // Scaleway
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")       // RFC 1122 section 3.2.1.3
	reserved4   = netip.MustParsePrefix("240.0.0.0/4")     // RFC 1112 section 4
	siteLocal   = netip.MustParsePrefix("fec0::/10")       // RFC 3879
	compatible  = netip.MustParsePrefix("::/96")           // IPv4-compatible, RFC 4291 section 2.5.5.1
	translated  = netip.MustParsePrefix("::ffff:0:0:0/96") // IPv4-translated, RFC 7915
	sixToFour   = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo      = netip.MustParsePrefix("2001::/32")       // RFC 4380
	nat64       = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// KindOf returns what a is. An IPv6 address that stands for IPv4 addresses
// is what the worst of them is.
func KindOf(a netip.Addr) Kind {
	if a.Zone() != "" {
		return LinkLocal
	}
	k := Ordinary
	for _, m := range Meanings(a) {
		if k == Ordinary {
			k = plain(m)
		}
	}
	return k
}

// Meanings returns every address that a may stand for: itself, first, as IPv4
// where it is IPv4-mapped and without a zone, and the IPv4 addresses inside it.
func Meanings(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	return append([]netip.Addr{a}, embedded(a)...)
}

func plain(a netip.Addr) Kind {
	switch {
	case !a.IsValid(), a.IsUnspecified(), thisNetwork.Contains(a):
		return Unspecified
	case a.IsLoopback():
		return Loopback
	case slices.Contains(metadata, a):
		return Metadata
	case a.IsLinkLocalUnicast(), siteLocal.Contains(a):
		return LinkLocal
	case a.IsMulticast(), a == broadcast:
		return Multicast
	case reserved4.Contains(a):
		return Reserved
	}
	return Ordinary
}

// embedded returns the IPv4 addresses that an IPv6 address may be turned into
// on its way. Where the place depends on a prefix length that only the
// network knows, it returns every possible one.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	at := func(i ...int) netip.Addr { return netip.AddrFrom4([4]byte{b[i[0]], b[i[1]], b[i[2]], b[i[3]]}) }
	last := at(12, 13, 14, 15)
	switch {
	case a == netip.IPv6Loopback(), a.IsUnspecified():
		return nil
	case compatible.Contains(a), translated.Contains(a), nat64.Contains(a):
		return []netip.Addr{last}
	case nat64Local.Contains(a): // RFC 6052 section 2.2: byte 8 is skipped
		places := []netip.Addr{last, at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12)}
		used := slices.DeleteFunc(slices.Clone(places), thisNetwork.Contains)
		if len(used) == 0 {
			return places
		}
		return used // the other places hold the padding of this one
	case sixToFour.Contains(a):
		return []netip.Addr{at(2, 3, 4, 5)}
	case teredo.Contains(a): // the client's address has all bits turned
		var client [4]byte
		binary.BigEndian.PutUint32(client[:], ^binary.BigEndian.Uint32(b[12:]))
		return []netip.Addr{at(4, 5, 6, 7), netip.AddrFrom4(client)}
	case b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{last}
	}
	return nil
}
