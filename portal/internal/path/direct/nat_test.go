package direct

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNATIsNamedByWhatOthersSee(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	hosts := []netip.Addr{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	for name, test := range map[string]struct {
		seen string // by whom, what, and how many minutes ago
		want Mapping
		of   int // addresses
	}{
		"nobody has said anything":                  {"", MappingUnknown, 0},
		"seen at its own address":                   {"198.51.100.1:20000 203.0.113.7:5000 0", MappingNone, 1},
		"one has seen it":                           {"198.51.100.1:20000 203.0.113.1:40001 0", MappingSome, 1},
		"two see the same":                          {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40001 1", MappingIndependent, 1},
		"two ports of one see the same":             {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.1:20001 203.0.113.1:40001 1", MappingIndependent, 1},
		"each sees another port":                    {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40002 1", MappingDependent, 2},
		"one sees another port than long ago":       {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40002 11", MappingSome, 1},
		"one sees another port than before":         {"198.51.100.1:20000 203.0.113.1:40001 1, 198.51.100.1:20000 203.0.113.1:40002 0", MappingSome, 1},
		"a peer on the LAN sees its own address":    {"198.51.100.1:20000 203.0.113.1:40001 0, 192.168.1.8:5000 192.168.1.7:5000 0", MappingSome, 1},
		"IPv6 without NAT says nothing of IPv4":     {"198.51.100.1:20000 203.0.113.1:40001 0, [2001:db8::1]:5000 [2001:db8::7]:5000 0", MappingSome, 1},
		"one way leads through a NAT, one does not": {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.7:5000 0", MappingDependent, 2},
	} {
		var list []sighting
		for _, one := range strings.Split(test.seen, ", ") {
			if f := strings.Fields(one); len(f) == 3 {
				ago, err := time.ParseDuration(f[2] + "m")
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, sighting{netip.MustParseAddrPort(f[0]), netip.MustParseAddrPort(f[1]), now.Add(-ago)})
			}
		}
		slices.Reverse(list)
		if got := judge(list, hosts, now); got.Mapping != test.want || len(got.Seen) != test.of {
			t.Errorf("%s: %v, seen at %v, want %v", name, got.Mapping, got.Seen, test.want)
		}
	}
}
