package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceIsRead(t *testing.T) {
	got, err := Load("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Servers:     []string{"netport.example.org:443", "netport-2.example.org"},
		Certificate: "cert.pem", Key: "key.pem", CA: "ca.pem", Socket: "relay.sock",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
		First:     20000, Last: 32767, SharedTCP: 443, SharedUDP: 443,
		Deny:     []netip.Prefix{netip.MustParsePrefix("198.51.100.16/28")},
		Capacity: 4000, SessionsPerPortal: 200, LogLevel: "info",
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(name)
}

func TestLeastFileIsEnough(t *testing.T) {
	c, err := load(t, `servers = ["example.org"]`)
	if err != nil {
		t.Fatal(err)
	}
	if c.First != 20000 || c.Last != 32767 || c.SharedTCP != 0 || c.AllowLoopback || filepath.Base(c.Socket) != "relay.sock" {
		t.Errorf("defaults: %+v", c)
	}
}

func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	const ok = "servers = [\"example.org\"]\n"
	for _, c := range []struct{ text, want string }{
		{``, "0 servers"},
		{`servers = ["example.org:0"]`, `1:12: server "example.org:0": the port`},
		{ok + `adresses = []`, `2:1: unknown key "adresses"; did you mean "addresses"?`},
		{ok + `addresses = ["relay.example.org"]`, `2:14: "relay.example.org" is not an IP address`},
		{ok + `addresses = ["fe80::1%eth0"]`, `is not an IP address`},
		{ok + `deny = ["192.0.2.1/24"]`, `2:9: "192.0.2.1/24" is not a network`},
		{ok + `first_port = 80`, `2:14: port 80: 1024 to 65535`},
		{ok + `last_port = 1024`, `2:13: the last session port, 1024, is below the first, 20000`},
		{ok + `shared_udp_port = 20000`, `2:19: port 20000 is one of the session ports`},
		{ok + `capacity = 0`, `2:12: 0 sessions: 1 to 1000000`},
		{ok + `log_level = "loud"`, `2:13: log level "loud"`},
		{ok + `socket = ""`, `2:10: key "socket" is empty`},
		{ok + `allow_loopback = "yes"`, `2:`},
	} {
		if _, err := load(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}
