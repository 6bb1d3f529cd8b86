package direct

import (
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/wire"
)

// own returns this portal's candidates, best first, and its addresses with the ports
// that are open there. loopback says that loopback addresses are of use.
func (f *Finder) own(loopback bool) (list []wire.Candidate, hosts []netip.AddrPort) {
	add := func(origin wire.CandidateOrigin, a netip.AddrPort) {
		same := func(c wire.Candidate) bool { return c.Addr == a && c.Transport == wire.CandidateUDP }
		if !slices.ContainsFunc(list, same) {
			list = append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: origin, Addr: a})
		}
	}
	f.mu.Lock()
	sources := slices.Clone(f.sources)
	f.mu.Unlock()
	for _, get := range sources {
		list = append(list, get()...)
	}
	mapped := f.Paths.Mapped()
	for _, m := range slices.Backward(mapped) { // the newest first
		add(wire.OriginReflexive, m.Addr)
	}
	for _, a := range f.hosts(loopback) {
		if port := f.port(a); port != nil {
			add(wire.OriginHost, netip.AddrPortFrom(a, port.Local()))
			hosts = append(hosts, netip.AddrPortFrom(a, port.Local()))
		}
	}
	return list, hosts
}

// hosts returns the addresses of this machine's interfaces, those of the network that the
// default route leads through first.
func (f *Finder) hosts(loopback bool) (list []netip.Addr) {
	if f.Network != nil {
		prefix := f.Network.Current().Prefix
		for _, a := range f.Network.Addresses() {
			switch {
			case address.KindOf(a) != address.Ordinary:
			case prefix.Contains(a):
				list = slices.Insert(list, 0, a)
			default:
				list = append(list, a)
			}
		}
	}
	if loopback {
		list = append(list, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	return list
}
