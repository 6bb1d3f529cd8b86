package address

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/netport/netport/proto/address/addresstest"
)

func TestMeaningsBeginWithTheAddress(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1":                  "[192.0.2.1]",
		"::ffff:192.0.2.1":           "[192.0.2.1]",
		"2001:db8::1":                "[2001:db8::1]",
		"fe80::1%eth0":               "[fe80::1]",
		"64:ff9b::c000:201":          "[64:ff9b::c000:201 192.0.2.1]",
		"2001:0:c000:201::3fff:fdfe": "[2001:0:c000:201::3fff:fdfe 192.0.2.1 192.0.2.1]",
	} {
		if got := fmt.Sprint(Meanings(netip.MustParseAddr(a))); got != want {
			t.Errorf("%s means %s, want %s", a, got, want)
		}
	}
}

func TestKindSeesThroughEveryEncoding(t *testing.T) {
	for _, c := range []struct {
		addr string
		want Kind
	}{
		{"10.0.0.5", Ordinary},
		{"192.168.1.1", Ordinary},
		{"100.64.0.1", Ordinary},
		{"8.8.8.8", Ordinary},
		{"2001:db8::1", Ordinary},
		{"fc00::1", Ordinary},
		{"fd00:ec2::253", Ordinary},
		{"::ffff:10.0.0.5", Ordinary},
		{"2002:a00:5::", Ordinary},
		{"64:ff9b::a00:5", Ordinary},

		{"127.0.0.1", Loopback},
		{"127.255.255.254", Loopback},
		{"::1", Loopback},
		{"::ffff:127.0.0.1", Loopback},
		{"::ffff:7f00:1", Loopback},
		{"::127.0.0.1", Loopback},
		{"::ffff:0:127.0.0.1", Loopback},
		{"64:ff9b::7f00:1", Loopback},
		{"64:ff9b:1::7f00:1", Loopback},
		{"64:ff9b:1:7f00:0:100::", Loopback},
		{"64:ff9b:1:7f:0:1::", Loopback},
		{"64:ff9b:1:0:7f:0:100::", Loopback},
		{"2002:7f00:1::", Loopback},
		{"2001:0:7f00:1::", Loopback},              // Teredo server
		{"2001:0:808:808:0:0:80ff:fffe", Loopback}, // Teredo client, 127.0.0.1 turned
		{"2001:db8::5efe:7f00:1", Loopback},        // ISATAP
		{"2001:db8::200:5efe:7f00:1", Loopback},    // ISATAP, global
		{"0.0.0.0", Unspecified},
		{"0.0.0.1", Unspecified},
		{"::", Unspecified},
		{"::ffff:0.0.0.0", Unspecified},
		{"64:ff9b::", Unspecified},
		{"169.254.169.254", Metadata},
		{"::ffff:a9fe:a9fe", Metadata},
		{"64:ff9b::a9fe:a9fe", Metadata},
		{"2002:a9fe:a9fe::1", Metadata},
		{"fd00:ec2::254", Metadata},
		{"100.100.100.200", Metadata},
		{"169.254.0.1", LinkLocal},
		{"fe80::1", LinkLocal},
		{"fe80::1%eth0", LinkLocal},
		{"::1%lo", LinkLocal},
		{"2001:db8::1%eth0", LinkLocal},
		{"fec0::1", LinkLocal},
		{"224.0.0.251", Multicast},
		{"ff02::1", Multicast},
		{"255.255.255.255", Multicast},
		{"240.0.0.1", Reserved},
	} {
		if got := KindOf(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("KindOf(%s) = %v, want %v", c.addr, got, c.want)
		}
	}
	if got := KindOf(netip.Addr{}); got != Unspecified {
		t.Errorf("KindOf(no address) = %v, want %v", got, Unspecified)
	}
}

func TestForbiddenAddressesAreNotOrdinary(t *testing.T) {
	for _, s := range addresstest.Forbidden {
		if got := KindOf(netip.MustParseAddr(s)); got == Ordinary {
			t.Errorf("%s is an %s address", s, got)
		}
	}
}
