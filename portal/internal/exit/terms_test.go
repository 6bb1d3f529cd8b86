package exit

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

func clients(t *testing.T, prefix string) grant.Clients {
	t.Helper()
	c, err := grant.NewClients([]netip.Prefix{netip.MustParsePrefix(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addrPort(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

// relayed is Config.Path of a portal whose tunnels go over relays.
func relayed(t grant.Terms) error {
	if t.Direct == grant.DirectOnly {
		return &grants.Refused{Reason: wire.ReasonNotDirect, Detail: "over a relay"}
	}
	return nil
}
