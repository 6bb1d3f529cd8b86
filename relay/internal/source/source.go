// Package source judges where a leg may come from. What a relay sends goes
// only to addresses that proved a leg, so these rules are also where it may
// send: never to the machine itself, to other relays, or to what is no host.
package source

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/wire"
)

// Ports are where a relay takes legs. Shared ports are 0 where there are none.
type Ports struct {
	First, Last, SharedTCP, SharedUDP uint16
}

func (p Ports) has(port uint16) bool {
	return p.First <= port && port <= p.Last || port == p.SharedTCP || port == p.SharedUDP
}

// Rules says which sources are refused. Its fields are constant once it is in
// use (SetDeny and SetOthers change what is behind them); it is safe for concurrent use.
type Rules struct {
	// AllowLoopback admits loopback addresses and the machine's own ones: for
	// demos and tests on one machine. Ports of relays are refused all the same.
	AllowLoopback bool
	// Own reports whether an address is the machine's own.
	Own func(netip.Addr) bool
	// Ports are this relay's own.
	Ports Ports
	// Deny lists further networks, such as those of relays that the server does
	// not know.
	Deny []netip.Prefix

	others atomic.Pointer[others]
	denied atomic.Pointer[[]netip.Prefix] // in the place of Deny; nil: that stands
}

// others is where the other relays are. Two may share an address.
type others map[netip.Addr][]Ports

// SetOthers says where the other relays are, in the place of what was said
// before.
func (r *Rules) SetOthers(list []wire.OtherRelay) {
	set := make(others)
	for _, o := range list {
		for _, a := range o.Addresses {
			a = a.Unmap()
			set[a] = append(set[a], Ports{o.First, o.Last, o.SharedTCP, o.SharedUDP})
		}
	}
	r.others.Store(&set)
}

// SetDeny replaces Deny, for legs that begin from now on.
func (r *Rules) SetDeny(list []netip.Prefix) { r.denied.Store(&list) }

func (r *Rules) deny() []netip.Prefix {
	if list := r.denied.Load(); list != nil {
		return *list
	}
	return r.Deny
}

// at returns the ports of the other relays at an address.
func (r *Rules) at(a netip.Addr) []Ports {
	if set := r.others.Load(); set != nil {
		return (*set)[a]
	}
	return nil
}

// Allows reports whether a leg may come from ap. An address is judged by its
// real meaning, see package address.
func (r *Rules) Allows(ap netip.AddrPort) bool {
	if ap.Port() == 0 || !r.serves(ap.Addr()) {
		return false
	}
	for _, a := range address.Meanings(ap.Addr()) {
		// Only where AllowLoopback lets own addresses in at all.
		if r.Ports.has(ap.Port()) && (a.IsLoopback() || r.Own(a)) {
			return false
		}
		if slices.ContainsFunc(r.at(a), func(p Ports) bool { return p.has(ap.Port()) }) {
			return false
		}
	}
	return true
}

// Admits reports whether a leg may come from an address at whatever port. So an
// address that another relay has is refused, but for AllowLoopback.
func (r *Rules) Admits(a netip.Addr) bool {
	if !r.serves(a) {
		return false
	}
	return r.AllowLoopback || !slices.ContainsFunc(address.Meanings(a), func(m netip.Addr) bool { return len(r.at(m)) > 0 })
}

// serves judges an address but for the ports of relays.
func (r *Rules) serves(a netip.Addr) bool {
	switch address.KindOf(a) {
	case address.Loopback:
		if !r.AllowLoopback {
			return false
		}
	case address.Ordinary:
	default:
		return false
	}
	for _, m := range address.Meanings(a) {
		for _, p := range r.deny() {
			if p.Contains(m) {
				return false
			}
		}
		if !r.AllowLoopback && r.Own(m) {
			return false
		}
	}
	return true
}
