package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/netport/netport/proto/address/addresstest"
	"github.com/netport/netport/proto/wire"
)

func access(addrs string, tcp, shared uint16) wire.RelayAccess {
	a := wire.RelayAccess{Name: "relay-1", TCP: tcp, SharedTCP: shared}
	for f := range strings.FieldsSeq(addrs) {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(f))
	}
	return a
}

func withPacket(a wire.RelayAccess, port uint16) wire.RelayAccess {
	a.Packet = port
	return a
}

func withUDP(a wire.RelayAccess, udp, shared uint16) wire.RelayAccess {
	a.UDP, a.SharedUDP = udp, shared
	return a
}

func TestRelaysAtForbiddenAddressesAreNotDialled(t *testing.T) {
	for _, c := range []struct {
		server string
		relay  wire.RelayAccess
		want   string // "": dialled
	}{
		{"192.0.2.1", access("192.0.2.2", 20000, 443), ""},
		{"192.0.2.1", access("192.0.2.2 2001:db8::2", 20000, 0), ""},
		{"192.0.2.1", access("192.0.2.2", 0, 443), ""},
		{"127.0.0.1", access("127.0.0.1", 20000, 0), ""},
		{"::1", access("127.0.0.1 ::1", 20000, 0), ""},
		{"127.0.0.1", access("10.0.0.2", 20000, 0), ""},
		{"10.0.0.1", access("192.168.7.2", 20000, 0), ""},
		{"fd00::1", access("10.0.0.2", 20000, 0), ""},

		{"192.0.2.1", access("127.0.0.1", 20000, 0), "loopback"},
		{"10.0.0.1", access("127.0.0.1", 20000, 0), "loopback"},
		{"192.0.2.1", access("192.0.2.2 ::1", 20000, 0), "loopback"},
		{"192.0.2.1", access("::ffff:127.0.0.1", 20000, 0), "loopback"},
		{"127.0.0.1", access("64:ff9b::7f00:1", 20000, 0), "loopback"},
		{"192.0.2.1", access("10.0.0.2", 20000, 0), "private"},
		{"192.0.2.1", access("fd00::2", 20000, 0), "private"},
		{"127.0.0.1", access("169.254.169.254", 20000, 0), "metadata"},
		{"192.0.2.1", access("169.254.1.1", 20000, 0), "link-local"},
		{"192.0.2.1", access("0.0.0.0", 20000, 0), "unspecified"},
		{"192.0.2.1", access("224.0.0.1", 20000, 0), "multicast"},
		{"192.0.2.1", access("255.255.255.255", 20000, 0), "broadcast"},
		{"192.0.2.1", access("192.0.2.2", 53, 443), "port 53"},
		{"192.0.2.1", access("192.0.2.2", 0, 0), "no port"},
		{"192.0.2.1", withUDP(access("192.0.2.2", 0, 0), 20000, 0), ""},
		{"192.0.2.1", withUDP(access("192.0.2.2", 0, 0), 0, 443), ""},
		{"192.0.2.1", withUDP(access("192.0.2.2", 0, 0), 53, 3478), "port 53"},
		{"192.0.2.1", withPacket(access("192.0.2.2", 20000, 0), 28672), ""},
		{"192.0.2.1", withPacket(access("192.0.2.2", 0, 0), 1024), ""},
		{"192.0.2.1", withPacket(access("192.0.2.2", 0, 0), 65528), ""},
		{"192.0.2.1", withPacket(access("192.0.2.2", 20000, 0), 1023), "port 1023"},
		{"192.0.2.1", withPacket(access("192.0.2.2", 20000, 0), 53), "port 53"},
		{"192.0.2.1", withPacket(access("192.0.2.2", 20000, 0), 65529), "no such ports"},
		{"192.0.2.1", withPacket(access("127.0.0.1", 0, 0), 28672), "loopback"},
	} {
		err := checkAccess(c.relay, netip.MustParseAddr(c.server))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("server %s, relay %v: %v, want %q", c.server, c.relay, err, c.want)
		}
	}
	if err := checkAccess(access("10.0.0.2", 20000, 0), netip.Addr{}); err == nil {
		t.Error("a private relay of a server at no known address was taken")
	}
}

// G7, T29: no server leads a portal to these by the name of a relay, for a session, a ticket or a measurement.
func TestForbiddenAddressesAreNoRelays(t *testing.T) {
	for _, s := range addresstest.Forbidden {
		a := wire.RelayAccess{Name: "r", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr(s)}, TCP: 20000, UDP: 20000, SharedTCP: 443}
		for _, server := range []string{"192.0.2.1", "10.0.0.1"} {
			if err := checkAccess(a, netip.MustParseAddr(server)); err == nil {
				t.Errorf("a server at %s has a relay at %s dialled", server, s)
			}
		}
	}
}

func TestCandidatesBeginWithTheModeThatWorked(t *testing.T) {
	relay := access("192.0.2.2 2001:db8::2", 20000, 443)
	list := func(transports wire.Transports, first Mode) (texts []string) {
		for _, c := range candidates(relay, transports, first) {
			texts = append(texts, c.at.String()+" "+c.mode.String()+" "+c.addr.String())
		}
		return texts
	}
	for _, c := range []struct {
		transports wire.Transports
		first      Mode
		want       []string
	}{
		{Transports, SessionPort, []string{
			"0s relay 192.0.2.2:20000", "50ms relay-shared 192.0.2.2:443",
			"250ms relay [2001:db8::2]:20000", "250ms relay-tls 192.0.2.2:443",
			"300ms relay-shared [2001:db8::2]:443", "500ms relay-tls [2001:db8::2]:443",
		}},
		{wire.TransportSplice, SharedTLS, []string{
			"0s relay 192.0.2.2:20000", "50ms relay-shared 192.0.2.2:443",
			"250ms relay [2001:db8::2]:20000", "300ms relay-shared [2001:db8::2]:443",
		}},
		{wire.TransportTLS, SessionPort, []string{"0s relay-tls 192.0.2.2:443", "250ms relay-tls [2001:db8::2]:443"}},
		{wire.TransportUDP, SessionPort, nil},
	} {
		if got := list(c.transports, c.first); !slices.Equal(got, c.want) {
			t.Errorf("transports %d, first %v:\n got %q\nwant %q", c.transports, c.first, got, c.want)
		}
	}
	if got := list(Transports, SharedTLS); got[0] != "0s relay-tls 192.0.2.2:443" || len(got) != 6 {
		t.Errorf("after TLS has worked: %q", got)
	}
}

func TestUDPLegIsBoundAtOneAddressOfEachIPVersion(t *testing.T) {
	for _, c := range []struct {
		relay  wire.RelayAccess
		server string
		want   string
		own    bool
	}{
		{withUDP(access("192.0.2.2 192.0.2.3 2001:db8::2", 0, 0), 20000, 443), "192.0.2.1", "[192.0.2.2:20000 [2001:db8::2]:20000]", false},
		{withUDP(access("192.0.2.2 2001:db8::2", 0, 0), 20000, 443), "2001:db8::1", "[[2001:db8::2]:20000 192.0.2.2:20000]", false},
		{withUDP(access("::ffff:192.0.2.2", 0, 0), 0, 3478), "192.0.2.1", "[192.0.2.2:3478]", true},
		{access("192.0.2.2", 20000, 443), "192.0.2.1", "[]", false},
	} {
		got, own := udpAddrs(c.relay, Transports, netip.MustParseAddr(c.server))
		if fmt.Sprint(got) != c.want || own != c.own {
			t.Errorf("%v, server %s: %v, own socket %v, want %s, %v", c.relay, c.server, got, own, c.want, c.own)
		}
	}
	if got, _ := udpAddrs(withUDP(access("192.0.2.2", 0, 0), 20000, 0), wire.TransportSplice, netip.MustParseAddr("192.0.2.1")); got != nil {
		t.Errorf("a session without UDP: %v", got)
	}
}
