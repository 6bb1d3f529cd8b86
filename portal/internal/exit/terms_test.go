package exit

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/proto/grant"
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
