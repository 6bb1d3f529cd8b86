// Package source judges where a leg may come from. What a relay sends goes
// only to addresses that proved a leg, so these rules are also where it may
// send: never to the machine itself, to other relays, or to what is no host.
//
// An address is judged by its real meaning: an IPv6 address that carries an
// IPv4 address (mapped, compatible, 6to4, Teredo, NAT64, ISATAP) is refused when
// either of the two is.
package source

import "net/netip"

// Rules says which sources are refused. It is constant once made.
type Rules struct {
	// AllowLoopback admits loopback addresses and the machine's own ones: for
	// demos and tests on one machine.
	AllowLoopback bool
	// Own reports whether an address is the machine's own.
	Own func(netip.Addr) bool
	// Deny lists further networks, such as those of other relays.
	Deny []netip.Prefix
}

// Allows reports whether a leg may come from ap.
func (r *Rules) Allows(ap netip.AddrPort) bool {
	a := ap.Addr()
	if ap.Port() == 0 || !a.IsValid() || a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if !r.allows(a) {
		return false
	}
	for _, v4 := range embedded(a) {
		if !r.allows(v4) {
			return false
		}
	}
	return true
}

func (r *Rules) allows(a netip.Addr) bool {
	if a.IsLoopback() {
		return r.AllowLoopback
	}
	if a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range never {
		if p.Contains(a) {
			return false
		}
	}
	for _, p := range r.Deny {
		if p.Contains(a) {
			return false
		}
	}
	return r.AllowLoopback || !r.Own(a)
}

// never lists what is no host that a portal could have: "this network" and the
// reserved space with the broadcast address (RFC 6890), the site-local space
// (RFC 3879), the metadata services of clouds, and the local NAT64 space (RFC
// 8215), whose addresses carry an IPv4 address at a place that cannot be known.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("fd00:ec2::254/128"),
}

var (
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291 section 2.5.5.1
	sixToFour  = netip.MustParsePrefix("2002::/16")    // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")    // RFC 4380
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
)

// embedded returns the IPv4 addresses that an IPv6 address carries.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	switch {
	case a == netip.IPv6Loopback():
		return nil // in ::/96, but means itself
	case compatible.Contains(a), nat64.Contains(a):
		return []netip.Addr{v4(12)}
	case sixToFour.Contains(a):
		return []netip.Addr{v4(2)}
	case teredo.Contains(a):
		client := v4(12).As4()
		for i := range client {
			client[i] ^= 0xff
		}
		return []netip.Addr{v4(4), netip.AddrFrom4(client)}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{v4(12)}
	}
	return nil
}
