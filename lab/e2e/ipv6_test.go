package e2e

import (
	"testing"

	"github.com/netport/netport/lab/topo"
)

// Each side of the tunnel has an IP version of its own, and so do the ways to the server and to the relay.
func TestIPv6(t *testing.T) {
	t.Parallel()
	four, six, both := topo.IPv4Only(), topo.IPv6Only(), topo.PortRestricted
	for _, tt := range []struct {
		name         string
		home, office topo.RouterOption
		version      int // of clients and services where there is a choice
	}{
		{"at home only", six, four, 6},
		{"at the office only", four, six, 6},
		{"on both sides, alone", six, six, 6},
		{"on both sides, beside IPv4", both, both, 6},
		{"on both sides, but clients and services of IPv4", both, both, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home, office := site{router: []topo.RouterOption{tt.home}}, site{router: []topo.RouterOption{tt.office}}
			w := newWorldOf(t, home, office)
			w.version = tt.version
			w.checkForwards(t)
		})
	}
}
