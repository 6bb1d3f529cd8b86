package endpoint

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

// good are endpoints in their one form.
var good = []string{
	"tcp://127.0.0.1:8080", "tcp://127.255.255.254:1", "tcp://0.0.0.0:80", "udp://10.0.0.5:161", "udp://255.255.255.255:65535", "tcp://169.254.169.254:80",
	"tcp://[::]:22", "tcp://[::1]:22", "tcp://[2001:db8::1]:22", "udp://[fe80::1]:53", "tcp://[ff02::1]:1", "tcp://[64:ff9b::7f00:1]:80", "tcp://[64:ff9b:1::7f00:1]:80",
	"tcp://[2002:7f00:1::]:80", "tcp://[::7f00:1]:80", "tcp://[2001:0:1:2::3]:80", "tcp://[fd00:ec2::254]:80",
	"tcp://localhost:80", "tcp://ip6-localhost:80", "tcp://db.lan:5432", "tcp://a:1", "tcp://a-b.c_d.e1:80", "tcp://xn--bcher-kva.example:443", "tcp://1.example:80", "tcp://7.a.b:80",
	"tcp://" + strings.Repeat("a", 63) + ".example:80",
	"tcp://" + strings.Repeat("a.", 126) + "b:65535",
	"unix:///run/app.sock", "unix:///a", "unix:///a b/\u00e9", "unix:///..a/.b", "unix:///" + strings.Repeat("a", maxUnixPath-1),
	"stdio:",
}

// bad are other writings of the same, and what other parsers take for an
// address (threats 4.7).
var bad = []string{
	"", ":", "://", "tcp", "tcp:", "tcp://", "tcp://:80", "tcp://a", "tcp://a:", "127.0.0.1:80", "//127.0.0.1:80", "a:80",
	"TCP://127.0.0.1:80", "Tcp://a:80", " tcp://a:80", "tcp://a:80 ", "tcp:// a:80", "tcp://a :80", "tcp:/a:80", "tcp:///a:80", "tcp://a:80/", "tcp://a:80?x", "tcp://a:80#f", "tcp://u@a:80",
	"http://a:80", "exec:///bin/sh", "serial:///dev/ttyS0", "tls://a:80", "tcp4://127.0.0.1:80", "sctp://a:1",

	// Ports.
	"tcp://a:0", "tcp://a:65536", "tcp://a:-1", "tcp://a:+80", "tcp://a:080", "tcp://a:0x50", "tcp://a:8_0", "tcp://a:80a", "tcp://a: 80", "tcp://a:http", "tcp://a:4294967376", "tcp://a:1e3", "tcp://a:\u0668",

	// IPv4 in disguise.
	"tcp://127.1:80", "tcp://127.0.1:80", "tcp://2130706433:80", "tcp://0x7f000001:80", "tcp://0x7f.1:80", "tcp://0x7f.0.0.1:80", "tcp://0177.0.0.1:80", "tcp://017700000001:80",
	"tcp://010.0.0.1:80", "tcp://127.0.0.01:80", "tcp://127.0.0.1.:80", "tcp://0:80", "tcp://0.0.0:80", "tcp://256.0.0.1:80", "tcp://1.2.3.4.5:80", "tcp://127.0.0.1e1:80",
	"tcp://127.0.0.0x1:80", "tcp://1.1.1.1%00127.0.0.1:80", "tcp://1.1.1.1\n127.0.0.1:80", "tcp://1.1.1.1\x00:80", "tcp://[127.0.0.1]:80", "tcp://127.0.0.1/8:80",
	"tcp://\uff11\uff12\uff17.0.0.1:80", "tcp://127\u30020.0.1:80",

	// IPv6 in other writings.
	"tcp://::1:80", "tcp://::1", "tcp://[::1]", "tcp://[::1]80", "tcp://[::1:80", "tcp://::1]:80", "tcp://[[::1]]:80", "tcp://[]:80", "tcp://[0::1]:80", "tcp://[0:0:0:0:0:0:0:1]:80", "tcp://[::0001]:80",
	"tcp://[2001:DB8::1]:22", "tcp://[2001:db8:0:0:0:0:0:1]:22", "tcp://[2001:db8::0:1]:22",
	"tcp://[::ffff:127.0.0.1]:80", "tcp://[::ffff:7f00:1]:80", "tcp://[::ffff:a9fe:a9fe]:80", "tcp://[::ffff:0.0.0.0]:80", "tcp://[0:0:0:0:0:ffff:7f00:1]:80",
	"tcp://[::127.0.0.1]:80", "tcp://[64:ff9b::127.0.0.1]:80",
	"tcp://[fe80::1%eth0]:80", "tcp://[::1%lo]:80", "tcp://[fe80::1%25eth0]:80", "tcp://[fe80::1%]:80", "tcp://fe80::1%eth0:80",

	// Names.
	"tcp://LOCALHOST:80", "tcp://Db.lan:80", "tcp://localhost.:80", "tcp://.a:80", "tcp://a..b:80", "tcp://-a:80", "tcp://a-:80", "tcp://a.-b:80", "tcp://*.localhost:80", "tcp://*:80",
	"tcp://a%62:80", "tcp://a/b:80", "tcp://a\\b:80", "tcp://a,b:80", "tcp://a;b:80", "tcp://a\tb:80", "tcp://a\x1b[2J:80", "tcp://\u00e4.de:80", "tcp://a\u202eb:80", "tcp://a\xff:80",
	"tcp://" + strings.Repeat("a", 64) + ":80", "tcp://" + strings.Repeat("a.", 126) + "bc:80", "tcp://a.1:80", "tcp://a.0x1:80", "tcp://" + strings.Repeat("a", 65536) + ":80",

	// Paths.
	"unix:", "unix://", "unix:///", "unix://run/app.sock", "unix:/run/app.sock", "unix:run", "unix:////a", "unix:///a//b", "unix:///a/", "unix:///a/.", "unix:///./a", "unix:///a/../b", "unix:///..",
	"unix://@abstract", "unix:///a\x00b", "unix:///a\nb", "unix:///a\x7f", "unix:///\x1b[2J", "unix:///a\xff", "unix:///a\u202eb", "unix:///a\u0085b", "unix:///a\ufffd", "unix:///" + strings.Repeat("a", maxUnixPath),

	"stdio", "stdio:x", "stdio://", "STDIO:", "stdio: ",
}

func TestOneFormOfEveryEndpoint(t *testing.T) {
	for _, s := range good {
		e, err := Parse(s)
		if err != nil || e.String() != s {
			t.Errorf("%.100q: got %q, %v", s, e, err)
		}
		var back struct{ E Endpoint }
		b, err := json.Marshal(struct{ E Endpoint }{e})
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if err != nil || back.E != e {
			t.Errorf("%.100q through JSON: %s became %v, %v", s, b, back.E, err)
		}
	}
	for _, s := range bad {
		e, err := Parse(s)
		if err == nil || !e.IsZero() {
			t.Errorf("%.100q was read as %q", s, e)
		} else if len(err.Error()) > 2048 || strings.ContainsAny(err.Error(), "\n\x1b\x00\u202e") {
			t.Errorf("%.100q: error of %d bytes, or with control characters: %.200q", s, len(err.Error()), err)
		}
	}
}

func TestErrorsSayWhatToWrite(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.1:80":                "tcp://HOST:PORT",
		"tcp://127.1:80":              "four decimal numbers",
		"tcp://010.0.0.1:80":          "without leading zeros",
		"tcp://::1:80":                "[::1]:80",
		"tcp://[2001:DB8::1]:80":      "[2001:db8::1]",
		"tcp://[::ffff:127.0.0.1]:80": "write 127.0.0.1",
		"tcp://[fe80::1%eth0]:80":     "without a zone",
		"tcp://Db.lan:80":             "lower case",
		"tcp://a:80a":                 "1 to 65535",
		"unix://run/a":                "unix:///PATH",
		"http://a:80":                 "tcp, udp, unix or stdio",
	} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s) {
			t.Errorf("%s: error %v, want one with %q", s, err, want)
		}
	}
}

func TestPartsOfEndpoints(t *testing.T) {
	for _, tt := range []struct {
		s, host, hostPort string
		port              uint16
		address, datagram bool
	}{
		{"tcp://127.0.0.1:80", "127.0.0.1", "127.0.0.1:80", 80, true, false},
		{"udp://[2001:db8::1]:53", "2001:db8::1", "[2001:db8::1]:53", 53, true, true},
		{"tcp://db.lan:5432", "db.lan", "db.lan:5432", 5432, false, false},
	} {
		e := MustParse(tt.s)
		ap, ok := e.AddrPort()
		if e.Host() != tt.host || e.HostPort() != tt.hostPort || e.Path() != "" || e.Port() != tt.port || ok != tt.address || e.Datagram() != tt.datagram {
			t.Errorf("%s: host %q, %q, path %q, port %d, address %v, datagram %v", tt.s, e.Host(), e.HostPort(), e.Path(), e.Port(), ok, e.Datagram())
		}
		if ok && (ap.String() != tt.hostPort || FromAddrPort(e.Scheme(), ap) != e) {
			t.Errorf("%s: address %v, and back %v", tt.s, ap, FromAddrPort(e.Scheme(), ap))
		}
	}
	if e := MustParse("unix:///run/a"); e.Scheme() != Unix || e.Path() != "/run/a" || e.Datagram() {
		t.Errorf("unix: %q, %q", e.Scheme(), e.Path())
	}
	if _, ok := MustParse("unix:///run/a").AddrPort(); ok {
		t.Error("a Unix socket has an address and port")
	}
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:80")
	zoned := netip.MustParseAddrPort("[fe80::1%eth0]:80")
	if got := FromAddrPort(TCP, mapped).String(); got != "tcp://192.0.2.1:80" {
		t.Errorf("mapped address became %s", got)
	}
	if got := FromAddrPort(UDP, zoned).String(); got != "udp://[fe80::1]:80" {
		t.Errorf("address with a zone became %s", got)
	}
	if e := (Endpoint{}); e.String() != "" || !e.IsZero() || MustParse("stdio:").IsZero() {
		t.Error("the zero Endpoint is not told from others")
	}
}

func TestListenersAndTargets(t *testing.T) {
	for _, tt := range []struct {
		s              string
		listen, target bool
	}{
		{"tcp://127.0.0.1:80", true, true},
		{"udp://[::1]:80", true, true},
		{"tcp://0.0.0.0:80", true, false},
		{"udp://[::]:80", true, false},
		{"tcp://db.lan:80", false, true},
		{"tcp://localhost:80", false, true},
		{"udp://224.0.0.251:5353", false, false},
		{"tcp://[ff02::1]:80", false, false},
		{"unix:///run/a", true, true},
		{"stdio:", true, false},
	} {
		e := MustParse(tt.s)
		if l, d := e.CheckListener(), e.CheckTarget(); (l == nil) != tt.listen || (d == nil) != tt.target {
			t.Errorf("%s: as listener %v, as target %v; want accepted %v, %v", tt.s, l, d, tt.listen, tt.target)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range append(good, bad...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if err != nil {
			if !e.IsZero() {
				t.Fatalf("%q: an endpoint beside an error", s)
			}
			return
		}
		if e.String() != s {
			t.Fatalf("%q was read as %q", s, e)
		}
		if ap, ok := e.AddrPort(); ok && (FromAddrPort(e.Scheme(), ap) != e || ap.Addr().Is4In6() || ap.Addr().Zone() != "") {
			t.Fatalf("%q is the address %v", s, ap)
		}
	})
}
