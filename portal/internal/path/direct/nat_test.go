package direct

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/outside"
)

// What counts of what others have seen: the newest of each, for a while, and nothing that neighbours see.
func TestSightingsThatCount(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	hosts := []netip.Addr{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	for name, test := range map[string]struct {
		seen string // by whom, what, and how many minutes ago
		want outside.Mapping
	}{
		"nobody has said anything":               {"", outside.Unknown},
		"seen at its own address":                {"198.51.100.1:20000 203.0.113.7:5000 0", outside.None},
		"two see the same":                       {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40001 1", outside.EndpointIndependent},
		"each sees another port":                 {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40002 1", outside.Dependent},
		"one sees another port than long ago":    {"198.51.100.1:20000 203.0.113.1:40001 0, 198.51.100.2:20000 203.0.113.1:40002 11", outside.Some},
		"one saw another port before another's":  {"198.51.100.1:20000 203.0.113.1:40001 2, 198.51.100.2:20000 203.0.113.1:40002 1, 198.51.100.1:20000 203.0.113.1:40002 0", outside.EndpointIndependent},
		"a peer on the LAN sees its own address": {"198.51.100.1:20000 203.0.113.1:40001 0, 192.168.1.8:5000 192.168.1.7:5000 0", outside.Some},
		"IPv6 without NAT says nothing of IPv4":  {"198.51.100.1:20000 203.0.113.1:40001 0, [2001:db8::1]:5000 [2001:db8::7]:5000 0", outside.Some},
	} {
		var list []sighting
		for one := range strings.SplitSeq(test.seen, ", ") {
			if f := strings.Fields(one); len(f) == 3 {
				ago, err := time.ParseDuration(f[2] + "m")
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, sighting{outside.Sighting{By: netip.MustParseAddrPort(f[0]), At: netip.MustParseAddrPort(f[1])}, now.Add(-ago)})
			}
		}
		if got := judge(list, hosts, now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
