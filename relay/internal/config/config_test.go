package config

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile/conffiletest"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/metrics/scrape"
)

func TestReferenceFileShowsEveryKey(t *testing.T) {
	everything := conffiletest.Reference(t, "reference.toml", func() any { raw := defaults(); return &raw }, "servers")
	name := filepath.Join(t.TempDir(), "config.toml")
	everything = bytes.Replace(everything, []byte("shared_tcp_port = 0"), []byte("shared_tcp_port = 443"), 1) // take_over needs one
	if err := os.WriteFile(name, everything, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := grant.ParseKey("ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	if err != nil {
		t.Fatal(err)
	}
	in := func(file string) string { return filepath.Join(filepath.Dir(name), file) }
	want := Config{
		Servers:     []string{"netport.example.org:443", "netport-2.example.org"},
		Certificate: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem"), State: in("state"), Socket: in("relay.sock"),
		PolicyKey: policy,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
		First:     20000, Last: 32767, PacketFirst: 28672, PacketLast: 32767,
		SharedTCP: 443, TakeOver: "/run/netport-relay/shared.sock", TakeOverFrom: "netport-server",
		Deny:     []netip.Prefix{netip.MustParsePrefix("198.51.100.16/28")},
		Capacity: 4000, SessionsPerPortal: 200,
		Mode: "auto", Interfaces: []string{"eth0"}, PinDir: "/sys/fs/bpf/netport-relay", Log: command.Log{Level: "info", Format: "text"},
		Metrics:    scrape.Address{Network: "unix", Address: "/run/netport/relay-metrics.sock"},
		TicketKeys: in("tickets.key"), Drain: 25 * time.Second,
	}
	if through := got.Proxy.Through("netport.example.org:443"); through == nil || through.String() != "http://proxy.example.org:3128" {
		t.Errorf("the server is reached through %v", through)
	}
	got.Proxy = nil
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

func TestEnvironmentHasMoreWeightThanTheFile(t *testing.T) {
	t.Setenv("NETPORT_RELAY_CAPACITY", "17")
	t.Setenv("NETPORT_RELAY_ALLOW_LOOPBACK", "true")
	c, err := load(t, "servers = [\"example.org\"]\ncapacity = 18\nsessions_per_portal = 5\n")
	if err != nil || c.Capacity != 17 || c.SessionsPerPortal != 5 || !c.AllowLoopback {
		t.Errorf("capacity %d, sessions_per_portal %d, allow_loopback %t, %v", c.Capacity, c.SessionsPerPortal, c.AllowLoopback, err)
	}
	t.Setenv("NETPORT_RELAY_CAPACITY", "0")
	if _, err := load(t, "servers = [\"example.org\"]\n"); err == nil || !strings.HasPrefix(err.Error(), "environment variable NETPORT_RELAY_CAPACITY: 0 sessions") {
		t.Errorf("no capacity there: %v", err)
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
	if c.First != 20000 || c.Last != 32767 || c.SharedTCP != 0 || c.AllowLoopback || filepath.Base(c.Socket) != "relay.sock" || c.Drain != 25*time.Second {
		t.Errorf("defaults: %+v", c)
	}
	if c.Mode != ModeAuto || len(c.Interfaces) != 0 || c.PinDir != "/sys/fs/bpf/netport-relay" {
		t.Errorf("defaults of the kernel planes: %+v", c)
	}
}

func TestPacketPortsAreTheUpperSessionPorts(t *testing.T) {
	for _, c := range []struct {
		text        string
		first, last uint16
	}{
		{``, 28672, 32767},
		{`packet_ports = "none"`, 0, 0},
		{`packet_ports = "32760-32767"`, 32760, 32767},
		{`packet_ports = "20008-32767"`, 20008, 32767},
		{"first_port = 1024\nlast_port = 65535", 61440, 65535},
		{"first_port = 20000\nlast_port = 20997", 20664, 20991}, // 332 ports, but whole blocks
		{"first_port = 20000\nlast_port = 20997\npacket_ports = \"20984-20991\"", 20984, 20991},
		{"first_port = 20000\nlast_port = 20022", 0, 0},
		{"first_port = 20000\nlast_port = 20023", 20016, 20023},
		{"first_port = 20000\nlast_port = 20000", 0, 0},
	} {
		got, err := load(t, "servers = [\"example.org\"]\n"+c.text)
		if err != nil || got.PacketFirst != c.first || got.PacketLast != c.last {
			t.Errorf("%q: ports %d to %d, %v; want %d to %d", c.text, got.PacketFirst, got.PacketLast, err, c.first, c.last)
		}
	}
}

func TestPinDirIsRelativeToTheFile(t *testing.T) {
	c, err := load(t, "servers = [\"example.org\"]\npin_dir = \"pins\"")
	if err != nil || !filepath.IsAbs(c.PinDir) || filepath.Base(c.PinDir) != "pins" {
		t.Errorf("pin_dir %q, %v", c.PinDir, err)
	}
}

func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	const ok = "servers = [\"example.org\"]\n"
	for _, c := range []struct{ text, want string }{
		{``, "no server"},
		{`servers = ["example.org:0"]`, `1:12: server "example.org:0": the port`},
		{ok + `adresses = []`, `2:1: unknown key "adresses"; did you mean "addresses"?`},
		{ok + `addresses = ["relay.example.org"]`, `2:14: "relay.example.org" is not an IP address`},
		{ok + `addresses = ["fe80::1%eth0"]`, `is not an IP address`},
		{ok + `deny = ["192.0.2.1/24"]`, `2:9: "192.0.2.1/24" is not a network`},
		{ok + `first_port = 80`, `2:14: port 80: 1024 to 65535`},
		{ok + `last_port = 1024`, `2:13: the last session port, 1024, is below the first, 20000`},
		{ok + `shared_udp_port = 20000`, `2:19: port 20000 is one of the session ports`},
		{ok + `take_over = "s.sock"`, `2:13: take_over needs shared_tcp_port`},
		{ok + "shared_tcp_port = 443\ntake_over = \"" + strings.Repeat("s", 108) + `"`, `3:13: take_over: the path has`},
		{ok + `take_over_from = "nobody"`, `2:18: take_over_from is of no use without take_over`},
		{ok + `capacity = 0`, `2:12: 0 sessions: 1 to 1000000`},
		{ok + `bytes_per_second = -1`, `2:20: a limit of -1 a second: 0 (none), or 10 and more, is possible`},
		{ok + `packets_per_second = 9`, `2:22: a limit of 9 a second`},
		{ok + `log_level = "loud"`, `2:13: log level "loud"`},
		{ok + `log_format = "xml"`, `2:14: log format "xml"`},
		{ok + `metrics = "0.0.0.0:9401"`, `2:11: metrics are not served at 0.0.0.0:9401, where others can reach it`},
		{ok + `socket = ""`, `2:10: key "socket" is empty`},
		{ok + `allow_loopback = "yes"`, `2:`},
		{ok + `packet_ports = "28672"`, `2:16: "28672" are no ports`},
		{ok + `packet_ports = "28672 - 32767"`, `are no ports`},
		{ok + `packet_ports = "028672-32767"`, `are no ports`},
		{ok + `packet_ports = "28672-98303"`, `are no ports`},
		{ok + `packet_ports = 28672`, `2:`},
		{ok + `packet_ports = "28673-32767"`, `2:16: ports 28673 to 32767: a leg takes 8 ports`},
		{ok + `packet_ports = "28672-32766"`, `a leg takes 8 ports`},
		{ok + `packet_ports = "32768-32767"`, `a leg takes 8 ports`},
		{ok + `packet_ports = "20000-32767"`, `leave none for sockets`},
		{ok + `packet_ports = "1024-32767"`, `leave none for sockets`},
		{ok + `packet_ports = "28672-32759"`, `are not the upper end of the session ports, 20000 to 32767`},
		{ok + `packet_ports = "28672-40959"`, `are not the upper end of the session ports`},
		{ok + `mode = "fast"`, `2:8: mode "fast": use auto, xdp, tc, xdp-generic or userspace`},
		{ok + `mode = ""`, `mode "": use auto`},
		{ok + `interfaces = ["eth0", "eth0"]`, `2:23: interface "eth0" is named twice`},
		{ok + `interfaces = [""]`, `"" is not the name of an interface`},
		{ok + `interfaces = ["../eth0"]`, `is not the name of an interface`},
		{ok + `interfaces = ["an-interface-too-long"]`, `is not the name of an interface`},
		{ok + `pin_dir = ""`, `2:11: key "pin_dir" is empty`},
		{ok + `ticket_keys = ""`, `key "ticket_keys" is empty`},
		{ok + `drain = "25"`, `2:9: drain "25": write a duration`},
		{ok + `drain = "61s"`, `drain "61s"`},
		{ok + `drain = "-1s"`, `drain "-1s"`},
		{ok + `addresses = [` + strings.Repeat(`"192.0.2.1",`, 64) + `]`, `64 addresses: at most 63`},
	} {
		if _, err := load(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}
