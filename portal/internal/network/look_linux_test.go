package network

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/network/networktest"
)

// A machine moves from Wi-Fi to LTE, as the kernel tells of it.
func TestKernelTellsOfLinksAddressesAndRoutes(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	networktest.Run(t, "ip link add wlan0 type veth peer name air")
	networktest.Run(t, "ip link add lte0 type veth peer name tower")
	w := New(slog.New(slog.DiscardHandler))
	changes, end := w.Changes()
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	// until waits for changes until they have shown all that is wanted.
	until := func(what string, shown func(Change) bool) {
		t.Helper()
		var all Change
		for timeout := time.After(10 * time.Second); !shown(all); {
			select {
			case c := <-changes:
				all = all.merge(c)
			case <-timeout:
				t.Fatalf("%s: told %+v in 10 s", what, all)
			}
		}
	}
	const wlan, lte = "10.1.0.7", "10.2.0.7"
	has := func(list []netip.Addr, a string) bool { return slices.Contains(list, addr(a)) }

	networktest.Run(t, "ip addr add 10.1.0.7/24 dev wlan0")
	networktest.Run(t, "ip link set air up")
	networktest.Run(t, "ip link set wlan0 up")
	until("wlan0 up", func(c Change) bool { return has(c.New, wlan) && c.Network && c.Link })
	networktest.Run(t, "ip route add default via 10.1.0.1")
	until("default route", func(c Change) bool { return c.Network })
	if got, want := w.Current().String(), "10.1.0.1 10.1.0.0/24"; got != want {
		t.Errorf("network %q, want %q", got, want)
	}

	networktest.Run(t, "ip addr add 10.2.0.7/24 dev lte0")
	networktest.Run(t, "ip link set tower up")
	networktest.Run(t, "ip link set lte0 up")
	until("lte0 up", func(c Change) bool { return has(c.New, lte) && !c.Network })
	networktest.Run(t, "ip route add default via 10.2.0.1 metric 500")
	networktest.Run(t, "ip link set air down") // out of range
	until("link lost", func(c Change) bool { return c.Link && !has(c.Gone, wlan) })
	networktest.Run(t, "ip route del default via 10.1.0.1")
	networktest.Run(t, "ip addr del 10.1.0.7/24 dev wlan0")
	until("moved", func(c Change) bool { return has(c.Gone, wlan) && c.Network })
	if got, want := w.Current().String(), "10.2.0.1 10.2.0.0/24"; got != want {
		t.Errorf("network %q, want %q", got, want)
	}

	networktest.Run(t, "ip addr add 2001:db8::7/64 dev lte0 nodad")
	until("IPv6 beside it", func(c Change) bool { return has(c.New, "2001:db8::7") && !c.Network })
	networktest.Run(t, "ip route del default via 10.2.0.1")
	networktest.Run(t, "ip route add default via 2001:db8::1")
	until("IPv6 alone", func(c Change) bool { return c.Network })
	if got := w.Current().Gateway; got != addr("2001:db8::1") {
		t.Errorf("gateway %v, want that of IPv6", got)
	}
}
