package matrix

import (
	"testing"

	"github.com/netport/netport/lab/topo"
)

// side is what stands before a portal, all its NATs and firewalls taken together.
type side struct {
	mapping, filtering topo.Behaviour
}

// open is nothing at all.
var open = side{topo.EndpointIndependent, topo.EndpointIndependent}

// guarded is a firewall that lets in what was asked for, and no NAT.
var guarded = side{topo.EndpointIndependent, topo.AddressAndPortDependent}

// behind is what NATs are together: as strict as the strictest.
func behind(nats ...topo.NAT) side {
	s := open
	for _, n := range nats {
		s.mapping, s.filtering = max(s.mapping, n.Mapping), max(s.filtering, n.Filtering)
	}
	return s
}

// reaches says whether a packet that x sends to where the relay has seen y gets to y, once y has sent to where the relay
// has seen x. If y can send there from the endpoint that the relay has seen, that lets in x's address, and x's very
// endpoint if x sends from the one that the relay has seen.
func (x side) reaches(y side) bool {
	switch {
	case y.filtering == topo.EndpointIndependent:
		return true
	case y.mapping != topo.EndpointIndependent:
		return false
	default:
		return y.filtering == topo.AddressDependent || x.mapping == topo.EndpointIndependent
	}
}

// meets says whether a direct path is possible: one packet that gets through shows the other where to answer.
func (x side) meets(y side) bool { return x.reaches(y) || y.reaches(x) }

// What is known of hole punching (RFC 5128, section 3.3; RFC 4787, section 5) holds the theory to.
func TestTheory(t *testing.T) {
	full, restricted := behind(topo.FullCone), behind(topo.RestrictedCone)
	port, symmetric := behind(topo.PortRestricted), behind(topo.Symmetric)
	for _, tt := range []struct {
		name string
		x, y side
		want bool
	}{
		{"no NAT, symmetric", open, symmetric, true},
		{"full cone, symmetric", full, symmetric, true},
		{"address-restricted, symmetric", restricted, symmetric, true},
		{"port-restricted, symmetric", port, symmetric, false},
		{"firewall, symmetric", guarded, symmetric, false},
		{"symmetric, symmetric", symmetric, symmetric, false},
		{"port-restricted, port-restricted", port, port, true},
		{"firewall, port-restricted", guarded, port, true},
		{"full cone behind a symmetric NAT, port-restricted", behind(topo.Symmetric, topo.FullCone), port, false},
		{"full cone behind a port-restricted NAT, symmetric", behind(topo.PortRestricted, topo.FullCone), symmetric, false},
	} {
		if tt.x.meets(tt.y) != tt.want || tt.y.meets(tt.x) != tt.want {
			t.Errorf("%s: %t and %t, want %t", tt.name, tt.x.meets(tt.y), tt.y.meets(tt.x), tt.want)
		}
	}
}
