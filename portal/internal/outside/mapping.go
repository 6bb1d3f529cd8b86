// Package outside names what the NATs between this portal and others do to its IPv4 address, by where others see one socket
// of it over UDP. What the NATs let in others cannot see: whether a way opens shows that.
package outside

import "net/netip"

// Mapping is how an address and port of this portal look from outside (RFC 4787 section 4.1; RFC 5780 section 4.3).
type Mapping uint8

// The mappings.
const (
	Unknown                 Mapping = iota // nobody has said where it sees this portal
	None                                   // this portal is seen at an address of its own
	Some                                   // there is a NAT, and one has seen it only
	EndpointIndependent                    // all see the same address and port: others can be told it
	Dependent                              // each sees another; whether by its address alone is not known
	AddressDependent                       // each address sees another, all ports of one the same
	AddressAndPortDependent                // ports of one address see others, too ("symmetric")
)

func (m Mapping) String() string {
	return [...]string{
		"unknown", "no NAT", "a NAT, its mapping unknown", "endpoint-independent mapping",
		"address-dependent mapping, or address and port-dependent", "address-dependent mapping", "address and port-dependent mapping",
	}[m]
}

// Sighting is where somebody sees this portal.
type Sighting struct{ By, At netip.AddrPort }

// Judge names the NATs by what was seen of one socket, the newest first; what was seen of IPv6, and by one the second
// time, does not count. own says whether an address is one of this portal's. The addresses at which it was seen are returned
// too, each once, the newest first.
func Judge(list []Sighting, own func(netip.Addr) bool) (m Mapping, at []netip.AddrPort) {
	heard, known := make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool) // by whom, where
	ports := make(map[netip.Addr]netip.AddrPort)                                 // where, by the address of whom
	bare, several, differ := true, false, false
	for _, s := range list {
		if heard[s.By] || !s.At.Addr().Is4() {
			continue
		}
		heard[s.By] = true
		bare = bare && own(s.At.Addr())
		if !known[s.At] {
			known[s.At] = true
			at = append(at, s.At)
		}
		other, more := ports[s.By.Addr()]
		several, differ = several || more, differ || more && other != s.At
		ports[s.By.Addr()] = s.At
	}
	switch {
	case len(heard) == 0:
		m = Unknown
	case bare:
		m = None
	case len(heard) == 1:
		m = Some
	case len(at) == 1:
		m = EndpointIndependent
	case differ:
		m = AddressAndPortDependent
	case several:
		m = AddressDependent
	default:
		m = Dependent
	}
	return m, at
}
