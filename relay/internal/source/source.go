// Package source judges where a leg may come from. What a relay sends goes
// only to addresses that proved a leg, so these rules are also where it may
// send: never to the machine itself, to other relays, or to what is no host.
package source

import (
	"net/netip"

	"github.com/netport/netport/proto/address"
)

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

// Allows reports whether a leg may come from ap. An address is judged by its
// real meaning, see package address.
func (r *Rules) Allows(ap netip.AddrPort) bool {
	if ap.Port() == 0 {
		return false
	}
	switch address.KindOf(ap.Addr()) {
	case address.Loopback:
		return r.AllowLoopback
	case address.Ordinary:
	default:
		return false
	}
	a := ap.Addr().Unmap()
	for _, p := range r.Deny {
		if p.Contains(a) {
			return false
		}
	}
	return r.AllowLoopback || !r.Own(a)
}
