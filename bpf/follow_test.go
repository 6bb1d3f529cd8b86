//go:build linux

package bpf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// route sets the gateway of a host behind one of the relay's links.
func (w *world) route(to, gateway netip.Addr) {
	w.Helper()
	err := netlink.RouteReplace(&netlink.Route{Dst: netlink.NewIPNet(to.AsSlice()), Gw: gateway.AsSlice()})
	if err != nil {
		w.Fatal(err)
	}
}

func TestFlowsFollowTheRoutes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWorld(t)
		k := w.open(w.options(ModeTC, ""))
		w.run(k, func(Event) {})
		p := pairOf(UDP, v6, 0)
		far := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
		if v6 {
			far = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
		}
		p.A.Remote, p.B.Remote = netip.AddrPortFrom(far[0], 1), netip.AddrPortFrom(far[1], 2)
		p.B.Local = p.A.Local
		a, b := uint32(interfaceIndex(t, "a")), uint32(interfaceIndex(t, "b"))
		// ways returns the interfaces of both directions, and whether packets go
		// back where they come from.
		type ways struct {
			toA, toB uint32
			back     bool
		}
		got := func() ways {
			fromA, _, _ := k.flowLocked(keyOf(UDP, p.A))
			fromB, _, _ := k.flowLocked(keyOf(UDP, p.B))
			return ways{fromB.Ifindex, fromA.Ifindex, fromA.Flags&fromB.Flags == flowBack}
		}

		w.route(far[0], hostAddr(0, v6))
		w.route(far[1], hostAddr(0, v6))
		if err := k.Add(p, Terms{}); err != nil {
			t.Fatal(err)
		}
		if want := (ways{a, a, true}); got() != want {
			t.Errorf("behind one gateway: %v, want %v", got(), want)
		}
		w.route(far[1], hostAddr(1, v6))
		await(t, "the ways part", func() bool { return got() == ways{a, b, false} })
		w.route(far[0], hostAddr(1, v6))
		await(t, "the ways meet", func() bool { return got() == ways{b, b, true} })
	}
}

// Without names, the interfaces are those that are up and have an address.
func TestInterfacesAndAddressesAreFoundAsTheyCome(t *testing.T) {
	w := newWorld(t)
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "late"
	late := &netlink.Veth{LinkAttrs: attributes, PeerName: "other"}
	if err := netlink.LinkAdd(late); err != nil {
		t.Fatal(err)
	}
	o := w.options(ModeTC, "")
	o.Interfaces = nil
	k := w.open(o)
	w.run(k, func(Event) {})
	first := []Interface{{"b", ModeTC, ""}, {"a", ModeTC, ""}}
	sorted := func() []Interface {
		list := k.Interfaces()
		slices.SortFunc(list, func(a, b Interface) int { return strings.Compare(b.Name, a.Name) })
		return list
	}
	if got := sorted(); !slices.Equal(got, first) {
		t.Errorf("interfaces %v, want %v", got, first)
	}
	p := pairOf(UDP, false, 0)
	p.A.Local = netip.MustParseAddr("10.0.9.1")
	if err := k.Add(p, Terms{}); err == nil {
		t.Error("a pair at an address that nobody has")
	}

	w.up("late")
	w.address("late", p.A.Local)
	want := append([]Interface{{"late", ModeTC, ""}}, first...)
	await(t, "the interface is attached to", func() bool { return slices.Equal(sorted(), want) })
	if err := k.Add(p, Terms{}); err != nil {
		t.Errorf("a pair at the new address: %v", err)
	}

	index := interfaceIndex(t, "late")
	mac := [6]byte{2, 0, 0, 0, 0, 7}
	if err := netlink.LinkSetHardwareAddr(late, mac[:]); err != nil {
		t.Fatal(err)
	}
	await(t, "the program knows the new MAC address", func() bool {
		var i relayInterface
		return k.maps.Interfaces.Lookup(uint32(index), &i) == nil && i.Known == 1 && i.Mac == mac
	})

	// An address that is gone is the relay's no more, but the flows at it have
	// its number still, and the pair its address.
	l, err := netlink.LinkByName("late")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	await(t, "the interface is gone", func() bool { return slices.Equal(sorted(), first) })
	if _, ok := pairsOf(k)[p]; !ok {
		t.Errorf("the table has %v", pairsOf(k))
	}
	other := pairOf(UDP, false, 1)
	other.A.Local = p.A.Local
	if err := k.Add(other, Terms{}); err == nil {
		t.Error("a pair at an address that is gone")
	}
}

func TestNumbersOfAddressesAreUsedAgain(t *testing.T) {
	k := openTable(t, 64)
	p := pairOf(UDP, false, 0)
	if err := k.Add(p, Terms{}); err != nil {
		t.Fatal(err)
	}
	// A relay whose addresses change all the time; two stay in use by flows.
	for n := range 200 {
		list := make([]netip.Addr, 30)
		for i := range list {
			list[i] = netip.AddrFrom4([4]byte{198, 51, byte(n), byte(i)})
		}
		if err := k.setOwn([]device{{ethernet: true, addresses: list}}); err != nil {
			t.Fatal(err)
		}
		if len(k.own.index) != len(list) {
			t.Fatalf("after %d changes %d addresses have numbers, want %d", n, len(k.own.index), len(list))
		}
	}
	if _, ok := pairsOf(k)[p]; !ok {
		t.Errorf("the pair has become %v", pairsOf(k))
	}
}
