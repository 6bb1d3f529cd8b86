package proxyheader

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

func TestGoldenHeaders(t *testing.T) {
	const sig = "0d0a0d0a000d0a515549540a"
	for _, c := range []struct{ source, destination, v1, v2 string }{
		{
			"192.0.2.7:51234", "127.0.0.1:8080",
			"PROXY TCP4 192.0.2.7 127.0.0.1 51234 8080\r\n",
			sig + "21 11 000c c0000207 7f000001 c822 1f90",
		},
		{
			"[2001:db8::7]:65535", "[::1]:1",
			"PROXY TCP6 2001:db8::7 ::1 65535 1\r\n",
			sig + "21 21 0024 20010db8000000000000000000000007 00000000000000000000000000000001 ffff 0001",
		},
		{"", "127.0.0.1:8080", "PROXY UNKNOWN\r\n", sig + "21 00 0000"},
		{"192.0.2.7:51234", "[::1]:1", "PROXY UNKNOWN\r\n", sig + "21 00 0000"},
		{"[fe80::1%eth0]:1", "[::1]:1", "PROXY UNKNOWN\r\n", sig + "21 00 0000"},
		{"[::ffff:192.0.2.7]:1", "[::1]:1", "PROXY UNKNOWN\r\n", sig + "21 00 0000"},
	} {
		var source netip.AddrPort
		if c.source != "" {
			source = netip.MustParseAddrPort(c.source)
		}
		destination := netip.MustParseAddrPort(c.destination)
		if got := string(AppendV1([]byte("x"), source, destination)); got != "x"+c.v1 {
			t.Errorf("v1 of %s to %s: %q, want %q", c.source, c.destination, got, c.v1)
		}
		want := "78" + strings.ReplaceAll(c.v2, " ", "")
		if got := hex.EncodeToString(AppendV2([]byte("x"), source, destination)); got != want {
			t.Errorf("v2 of %s to %s:\n got %s\nwant %s", c.source, c.destination, got, want)
		}
	}
}
