package source

import (
	"net"
	"net/netip"
	"testing"
)

func rules(loopback bool) *Rules {
	own := netip.MustParseAddr("198.51.100.1")
	return &Rules{
		AllowLoopback: loopback,
		Own:           func(a netip.Addr) bool { return a == own },
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
		"198.51.100.1", "::ffff:198.51.100.1", "203.0.113.9",
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
