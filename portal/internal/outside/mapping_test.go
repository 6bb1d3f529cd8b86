package outside

import (
	"net/netip"
	"strings"
	"testing"
)

func TestNATIsNamedByWhatOthersSee(t *testing.T) {
	own := map[netip.Addr]bool{netip.MustParseAddr("192.168.1.7"): true, netip.MustParseAddr("203.0.113.7"): true}
	for _, c := range []struct {
		name, seen string // by whom, and where
		want       Mapping
		at         int // addresses
	}{
		{"nobody has said anything", "", Unknown, 0},
		{"over IPv6 only", "[2001:db8::1]:5000 [2001:db8::7]:5000", Unknown, 0},
		{"seen at its own address", "198.51.100.1:20000 203.0.113.7:5000", None, 1},
		{"two see it at its own address", "198.51.100.1:20000 203.0.113.7:5000, 198.51.100.2:20000 203.0.113.7:5000", None, 1},
		{"one has seen it", "198.51.100.1:20000 203.0.113.1:40001", Some, 1},
		{"one has seen it again, elsewhere", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.1:20000 203.0.113.1:40002", Some, 1},
		{"two see the same", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.2:20000 203.0.113.1:40001", EndpointIndependent, 1},
		{"two ports of one see the same", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.1:20001 203.0.113.1:40001", EndpointIndependent, 1},
		{"each sees another port", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.2:20000 203.0.113.1:40002", Dependent, 2},
		{"one sees an address of its own, and one another", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.2:20000 203.0.113.7:5000", Dependent, 2},
		{"two ports of one see two", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.1:20001 203.0.113.1:40002", AddressAndPortDependent, 2},
		{"the same, and another sees one of them", "198.51.100.2:20000 203.0.113.1:40001, 198.51.100.1:20000 203.0.113.1:40001, 198.51.100.1:20001 203.0.113.1:40002", AddressAndPortDependent, 2},
		{"two ports of one see the same, another a second", "198.51.100.1:20000 203.0.113.1:40001, 198.51.100.2:20000 203.0.113.1:40002, 198.51.100.1:20001 203.0.113.1:40001", AddressDependent, 2},
	} {
		var list []Sighting
		for one := range strings.SplitSeq(c.seen, ", ") {
			if f := strings.Fields(one); len(f) == 2 {
				list = append(list, Sighting{netip.MustParseAddrPort(f[0]), netip.MustParseAddrPort(f[1])})
			}
		}
		got, at := Judge(list, func(a netip.Addr) bool { return own[a] })
		if got != c.want || len(at) != c.at {
			t.Errorf("%s: %v, seen at %v; want %v", c.name, got, at, c.want)
		}
		if c.at > 0 && at[0] != list[0].At {
			t.Errorf("%s: %v is the first, not the newest", c.name, at[0])
		}
	}
}
