package topo_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/netport/netport/lab/topo"
)

// A host with two uplinks answers by the one that it was asked by.
func TestSecondUplinkCarriesItsOwnTraffic(t *testing.T) {
	l := topo.New(t)
	client, host := l.Public("client"), l.Public("host")
	second := host.SecondUplink(topo.MTU(1400))
	host.Listen(80)
	answers := func(addr netip.Addr, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience(want))
		defer cancel()
		conn, err := client.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, 80))
		if err == nil {
			conn.Close()
		}
		if got := err == nil; got != want {
			t.Errorf("%v answers: %v, want success %t", addr, err, want)
		}
	}
	for _, addr := range []netip.Addr{second.Addr4, second.Addr6, host.Addr4(), host.Addr6()} {
		answers(addr, true)
	}
	host.SetRules(topo.DropAll) // at the first
	answers(second.Addr4, true)
	answers(second.Addr6, true)
	answers(host.Addr4(), false)
}
