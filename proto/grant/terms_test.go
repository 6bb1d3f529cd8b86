package grant

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/netport/netport/proto/wire"
)

func manyClients() Clients {
	var list []netip.Prefix
	for i := range MaxClients {
		list = append(list, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}), 128))
	}
	c, err := NewClients(list)
	if err != nil {
		panic(err)
	}
	return c
}

func TestClientsAllowTheirAddressesOnly(t *testing.T) {
	c := clients("192.168.7.0/24", "2001:db8::/32", "10.0.0.1/32")
	for _, tt := range []struct {
		clients Clients
		address string
		want    bool
	}{
		{c, "192.168.7.0", true}, {c, "192.168.7.255", true}, {c, "192.168.8.0", false}, {c, "192.168.6.255", false},
		{c, "10.0.0.1", true}, {c, "10.0.0.2", false},
		{c, "::ffff:192.168.7.9", true}, // as a socket for both families shows it
		{c, "::ffff:192.168.8.9", false}, {c, "2001:db8::1", true}, {c, "2001:db8::1%eth0", true}, {c, "2001:db9::1", false}, {c, "::c0a8:709", false},
		{clients("0.0.0.0/0"), "203.0.113.9", true}, {clients("0.0.0.0/0"), "2001:db8::1", false},
		{clients("::/0"), "2001:db8::1", true}, {clients("::/0"), "203.0.113.9", false},
		{Clients{}, "203.0.113.9", true}, {Clients{}, "2001:db8::1", true},
	} {
		if got := tt.clients.Allow(netip.MustParseAddr(tt.address)); got != tt.want {
			t.Errorf("%s from {%v}: %t, want %t", tt.address, tt.clients, got, tt.want)
		}
	}
	if (Clients{}).Allow(netip.Addr{}) != true || c.Allow(netip.Addr{}) {
		t.Error("a client without an address passes exactly where all do")
	}
}

func TestClientsHaveOneEncoding(t *testing.T) {
	a, b := clients("192.168.7.0/24", "10.0.0.0/8", "2001:db8::/32"), clients("2001:db8::/32", "10.0.0.0/8", "10.0.0.0/8", "192.168.7.0/24")
	if a != b {
		t.Errorf("{%v} and {%v} differ", a, b)
	}
	if want := "10.0.0.0/8, 192.168.7.0/24, 2001:db8::/32"; a.String() != want {
		t.Errorf("written %s, want %s", a, want)
	}
	for _, bad := range []netip.Prefix{
		{}, netip.MustParsePrefix("10.0.0.1/8"), netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33),
		netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104),
	} {
		if c, err := NewClients([]netip.Prefix{bad}); err == nil {
			t.Errorf("%v was taken as {%v}", bad, c)
		}
	}
	var many []netip.Prefix
	for i := range MaxClients + 1 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32))
	}
	if _, err := NewClients(many); err == nil {
		t.Errorf("%d prefixes are taken", len(many))
	}
}

// TestTermsHaveOneEncoding puts other encodings in the place of the golden ones.
func TestTermsHaveOneEncoding(t *testing.T) {
	good := unhex(t, goldenPermission)
	for _, tt := range []struct{ what, old, new string }{
		{"prefixes in another order", "04c0a8070018 1020010db800000000000000000000000020", "1020010db800000000000000000000000020 04c0a8070018"},
		{"a prefix twice", "0002 04c0a8070018 1020010db800000000000000000000000020", "0002 04c0a8070018 04c0a8070018"},
		{"bits behind the prefix", "04c0a8070018", "04c0a8070118"},
		{"33 bits", "04c0a8070018", "04c0a8070021"},
		{"a prefix of no address", "0002 04c0a8070018", "0002 0000"},
		{"IPv4 in IPv6 clothes", "0002 04c0a8070018", "0002 1000000000000000000000ffffc0a8070078"},
		{"windows in another order", "1f01e00438 2005280168", "2005280168 1f01e00438"},
		{"a window twice", "1f01e00438 2005280168", "1f01e00438 1f01e00438"},
		{"a window of no day", "2005280168", "0005280168"},
		{"an eighth day", "2005280168", "a005280168"},
		{"a window from minute 1440", "2005280168", "2005a00168"},
		{"a window until minute 1441", "2005280168", "20052805a1"},
		{"a window until minute 0", "2005280168", "2005280000"},
		{"a window of no time", "2005280168", "2005280528"},
		{"a zone without windows", "0002 1f01e00438 2005280168", "0000"},
		{"windows without a zone", "001a 4345542d31434553542c4d332e352e302c4d31302e352e302f33", "0000"},
		{"no rule for a zone", "001a 4345542d31434553542c4d332e352e302c4d31302e352e302f33", "000d 4575726f70652f4265726c696e"},
		{"a rule with month 13", "4d31302e352e302f33", "4d31332e352e302f33"},
		{"direct 3", "03 01 0000000000989680", "03 03 0000000000989680"},
		{"a rate beyond all", "0000000000989680", "1000000000000001"},
		{"more prefixes than there are", "0002 04c0a80700", "ffff 04c0a80700"},
		{"more windows than there are", "0002 1f01e00438", "ffff 1f01e00438"},
	} {
		b := bytes.Replace(good, unhex(t, tt.old), unhex(t, tt.new), 1)
		if bytes.Equal(b, good) {
			t.Fatalf("%s: nothing was replaced", tt.what)
		}
		if p, err := ParsePermission(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: read as %+v, %v", tt.what, p.Terms, err)
		}
	}
	// 65 of a kind, in order.
	tail := slices.Clone(good[:bytes.Index(good, unhex(t, "001a 434554"))])
	tail = append(tail, unhex(t, "0004 55544330")...)
	tail = binary.BigEndian.AppendUint16(tail, MaxWindows+1)
	for i := range MaxWindows + 1 {
		tail = append(tail, 1, 0, byte(i), 5, 0)
	}
	if _, err := ParsePermission(tail); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("%d windows: %v", MaxWindows+1, err)
	}
}

func TestDirectIsNamedAsInThePolicy(t *testing.T) {
	for d, want := range map[Direct]string{DirectAny: "any", DirectOnly: "only", DirectNever: "never", 7: "direct 7"} {
		if got := d.String(); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
