package direct

import (
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/wire"
)

// own returns this portal's candidates, best first, and its addresses with the ports
// that are open there: it opens those that are of use, and has the router map them. seen is
// where a peer has seen it, and loopback says that loopback addresses are of use.
func (f *Finder) own(seen []wire.Candidate, loopback bool) (list []wire.Candidate, hosts []netip.AddrPort) {
	add := func(transport wire.CandidateTransport, origin wire.CandidateOrigin, a netip.AddrPort) {
		same := func(c wire.Candidate) bool { return c.Addr == a && c.Transport == transport }
		if !slices.ContainsFunc(list, same) {
			list = append(list, wire.Candidate{Transport: transport, Origin: origin, Addr: a})
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
		add(wire.CandidateUDP, wire.OriginReflexive, m.Addr)
	}
	for _, c := range seen {
		add(c.Transport, c.Origin, c.Addr)
	}
	addrs := f.hosts(loopback)
	for _, a := range addrs {
		if port := f.port(a); port != nil {
			hosts = append(hosts, netip.AddrPortFrom(a, port.Local()))
			add(wire.CandidateUDP, wire.OriginHost, hosts[len(hosts)-1])
		}
	}
	for _, a := range addrs {
		if d := f.door(a); d != nil {
			hosts = append(hosts, netip.AddrPortFrom(a, d.port))
			add(wire.CandidateTCP, wire.OriginHost, hosts[len(hosts)-1])
		}
	}
	outside := make([]netip.Addr, 0, len(mapped)+1)
	for _, m := range mapped {
		outside = append(outside, m.Addr.Addr())
	}
	if f.Seen != nil {
		outside = append(outside, f.Seen().Unmap())
	}
	for _, a := range outside { // many NATs leave ports as they are
		if address.KindOf(a) != address.Ordinary {
			continue
		}
		if d := f.door(a); d != nil {
			add(wire.CandidateTCP, wire.OriginReflexive, netip.AddrPortFrom(a, d.port))
		}
	}
	f.mu.Lock()
	f.mapLocked()
	f.mu.Unlock()
	return list, hosts
}

// bounds returns what a peer's candidates are judged by, but for this portal's own.
func (f *Finder) bounds(here bool) bounds {
	b := bounds{loopback: here, infra: f.Paths.Relays()}
	if f.Server != nil {
		b.infra = append(b.infra, f.Server().Unmap())
	}
	slices.SortFunc(b.infra, netip.Addr.Compare)
	b.infra = slices.Compact(b.infra)
	return b
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
		list = slices.Insert(list, 0, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	return list
}
