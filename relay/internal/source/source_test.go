package source

import (
	"net"
	"net/netip"
	"testing"

	"github.com/netport/netport/proto/address/addresstest"
	"github.com/netport/netport/proto/wire"
)

func rules(loopback bool) *Rules {
	own := netip.MustParseAddr("198.51.100.1")
	return &Rules{
		AllowLoopback: loopback,
		Own:           func(a netip.Addr) bool { return a == own },
		Ports:         Ports{First: 20000, Last: 32767, SharedTCP: 443},
		Deny:          []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")},
	}
}

func TestAddressesAreJudgedByTheirRealMeaning(t *testing.T) {
	refused := []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.0.0.1", "::", "::1",
		"::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "0:0:0:0:0:ffff:7f00:1",
		"64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::", "2002:7f00:1::",
		"2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", // Teredo: server, and client 127.0.0.1
		"fe80::1%eth0", "fe80::1", "fec0::1", "ff02::1", "169.254.169.254", "::ffff:a9fe:a9fe",
		"fd00:ec2::254", "100.100.100.200", "255.255.255.255", "240.0.0.1", "224.0.0.251",
		"::1%lo", "2001:db8::5efe:7f00:1", "2001:db8::200:5efe:a9fe:a9fe",
		"198.51.100.1", "::ffff:198.51.100.1", "64:ff9b::c633:6401", // its own
		"203.0.113.9", "64:ff9b::cb00:7109", // denied
	}
	for _, s := range refused {
		if rules(false).Allows(netip.AddrPortFrom(netip.MustParseAddr(s), 4000)) {
			t.Errorf("%s is allowed", s)
		}
	}
	allowed := []string{
		"192.0.2.1", "10.0.0.5", "172.17.0.1", "192.168.1.1", "100.64.0.1", "203.0.113.16",
		"2001:db8::1", "fc00::1", "64:ff9b::c000:201", "2002:c000:201::1", "::ffff:192.0.2.1",
	}
	for _, s := range allowed {
		if !rules(false).Allows(netip.AddrPortFrom(netip.MustParseAddr(s), 4000)) {
			t.Errorf("%s is refused", s)
		}
	}
	if rules(false).Allows(netip.MustParseAddrPort("192.0.2.1:0")) || rules(false).Allows(netip.AddrPort{}) {
		t.Error("port 0 or no address is allowed")
	}
}

func TestLoopbackIsServedOnlyWhereAllowed(t *testing.T) {
	for _, s := range []string{"127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "198.51.100.1:1"} {
		ap := netip.MustParseAddrPort(s)
		if rules(false).Allows(ap) || !rules(true).Allows(ap) {
			t.Errorf("%s: %v without, %v with allow_loopback", s, rules(false).Allows(ap), rules(true).Allows(ap))
		}
	}
	if rules(true).Allows(netip.MustParseAddrPort("0.0.0.0:1")) {
		t.Error("allow_loopback admits 0.0.0.0")
	}
}

// T5: a relay that is joined with itself or with another sends in circles.
func TestPortsOfRelaysAreRefused(t *testing.T) {
	others := []wire.OtherRelay{
		{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("2001:db8::66")}, First: 30000, Last: 30999, SharedTCP: 444, SharedUDP: 3478},
		{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("127.0.0.1")}, First: 31000, Last: 31999},
	}
	for _, loopback := range []bool{false, true} {
		r := rules(loopback)
		other := netip.MustParseAddrPort("192.0.2.66:30000")
		if !r.Allows(other) || !r.Admits(other.Addr()) {
			t.Error("a relay is refused before it is known")
		}
		r.SetOthers(others)
		for _, s := range []string{
			"192.0.2.66:30000", "192.0.2.66:30999", "192.0.2.66:444", "192.0.2.66:3478", "192.0.2.66:31000", "192.0.2.66:31999",
			"[2001:db8::66]:30500", "[::ffff:192.0.2.66]:30500", "[64:ff9b::c000:242]:30500",
			"127.0.0.1:31500", "127.0.0.1:20000", "[::1]:32767", "198.51.100.1:443", "[::ffff:198.51.100.1]:20000",
		} {
			if r.Allows(netip.MustParseAddrPort(s)) {
				t.Errorf("loopback %v: %s is allowed", loopback, s)
			}
		}
		for _, s := range []string{"192.0.2.66:29999", "192.0.2.66:32000", "[2001:db8::66]:31500", "192.0.2.67:30500", "192.0.2.1:20000"} {
			if !r.Allows(netip.MustParseAddrPort(s)) {
				t.Errorf("loopback %v: %s is refused", loopback, s)
			}
		}
		for _, s := range []string{"192.0.2.66", "::ffff:192.0.2.66", "2001:db8::66"} {
			if r.Admits(netip.MustParseAddr(s)) != loopback {
				t.Errorf("loopback %v: %s at any port: %v", loopback, s, !loopback)
			}
		}
		if !r.Admits(netip.MustParseAddr("192.0.2.67")) || r.Admits(netip.MustParseAddr("198.51.100.1")) != loopback || r.Admits(netip.MustParseAddr("127.0.0.1")) != loopback {
			t.Errorf("loopback %v: wrong addresses at any port", loopback)
		}
		r.SetOthers(others[1:])
		if !r.Allows(other) || r.Allows(netip.MustParseAddrPort("192.0.2.66:31000")) {
			t.Errorf("loopback %v: the old list stands", loopback)
		}
	}
}

func TestMachineKnowsItsInterfaces(t *testing.T) {
	list, err := net.InterfaceAddrs()
	if err != nil || len(list) == 0 {
		t.Skipf("no interface addresses: %v", err)
	}
	var m Machine
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !m.Has(ip) {
			t.Errorf("%s is not known as own", a)
		}
	}
	if m.Has(netip.MustParseAddr("192.0.2.77")) {
		t.Error("192.0.2.77 is taken for an own address")
	}
}

// T13, G7: a relay sends to no address but one that a leg came from, and takes none from these.
func TestForbiddenAddressesAreNoSources(t *testing.T) {
	for _, s := range addresstest.Forbidden {
		a := netip.MustParseAddr(s)
		if r := rules(false); r.Allows(netip.AddrPortFrom(a, 4000)) || r.Admits(a) {
			t.Errorf("a leg from %s is taken", s)
		}
	}
}

func TestDeniedNetworksMayChange(t *testing.T) {
	r, was, is := rules(false), netip.MustParseAddrPort("203.0.113.9:4000"), netip.MustParseAddrPort("192.0.2.1:4000")
	r.SetDeny([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	if !r.Allows(was) || r.Allows(is) || r.Admits(is.Addr()) {
		t.Errorf("%v is allowed: %t, %v: %t", was, r.Allows(was), is, r.Allows(is))
	}
	r.SetDeny(nil)
	if !r.Allows(was) || !r.Allows(is) {
		t.Error("without a list something is denied")
	}
}
