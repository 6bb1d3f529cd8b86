package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile/conffiletest"
)

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), ConfigFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

func TestReferenceFileShowsEveryKey(t *testing.T) {
	everything := conffiletest.Reference(t, "reference.toml", func() any { r := defaults(); return &r }, "domain", "address", "listen")
	cfg, err := load(t, string(everything))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Metrics.Address != "127.0.0.1:9400" || !cfg.AcceptElsewhere || cfg.CAPassphrase != "/run/credentials/netport/ca" || cfg.HandOver != "/run/netport-relay/shared.sock" || !slices.Equal(cfg.CACommand, []string{"/usr/local/bin/sign-netport"}) {
		t.Errorf("its examples are read as %+v", cfg)
	}
	if got := Server("example.org", "netport.example.org:443", ":443", "policy.key", "ca.key"); string(got) != reference {
		t.Errorf("what init makes is not the reference:\n%s", cmp.Diff(reference, string(got)))
	}
}

func TestEnvironmentHasMoreWeightThanTheFile(t *testing.T) {
	t.Setenv("NETPORT_SERVER_CERTIFICATE_LIFE", "2d")
	t.Setenv("NETPORT_SERVER_LISTEN", `[":8443", ":80"]`)
	// What Kubernetes says of a service that is called netport-server is no key.
	t.Setenv("NETPORT_SERVER_SERVICE_HOST", "10.96.0.7")
	t.Setenv("NETPORT_SERVER_PORT", "tcp://10.96.0.7:443")
	cfg, err := load(t, string(Server("example.org", "h:443", ":443", "policy.key", "ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CertificateLife != 48*time.Hour || !slices.Equal(cfg.Listen, []string{":8443", ":80"}) {
		t.Errorf("certificate_life %v, listen %q", cfg.CertificateLife, cfg.Listen)
	}
	t.Setenv("NETPORT_SERVER_LISTEN", `[":8443", ":0"]`)
	if _, err := load(t, string(Server("example.org", "h:443", ":443", "policy.key", "ca.key"))); err == nil || !strings.HasPrefix(err.Error(), `environment variable NETPORT_SERVER_LISTEN: listen: port "0"`) {
		t.Errorf("port 0 there: %v", err)
	}
}

func TestFileThatInitMakesIsReadBack(t *testing.T) {
	text := string(Server("example.org", "netport.example.org:443", ":443", "policy.key", "ca.key"))
	cfg, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(cfg.File)
	in := func(name string) string { return filepath.Join(dir, name) }
	want := &Config{
		File: cfg.File, Domain: "example.org", Address: "netport.example.org:443", Listen: []string{":443"}, ListenUDP: []string{":443"},
		Servers:     []string{"netport.example.org:443"},
		Certificate: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem"), CAKey: in("ca.key"), PolicyKey: in("policy.key"), StampKey: in("stamp.key"),
		Policy: in("policy.toml"), State: dir, Socket: in("server.sock"), Log: command.Log{Level: "info", Format: "text"}, SessionsPerPortal: 1000,
		CertificateLife: 30 * 24 * time.Hour, RenewAfterExpiry: 90 * 24 * time.Hour,
	}
	if d := cmp.Diff(want, cfg, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Errorf("configuration (-want +got):\n%s", d)
	}
	if got := cfg.StateFile(); got != in("state.db") {
		t.Errorf("state file %s", got)
	}
	// What it says is what holds without it: only these must be written.
	short, err := load(t, "domain = \"example.org\"\naddress = \"netport.example.org:443\"\nlisten = [\":443\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	here := filepath.Dir(short.File)
	if d := cmp.Diff(strings.ReplaceAll(describe(cfg), dir, here), describe(short)); d != "" {
		t.Errorf("defaults (-file +none):\n%s", d)
	}
}

func describe(c *Config) string {
	return strings.Join([]string{strings.Join(c.Servers, " "), c.Certificate, c.Key, c.CA, c.CAKey, c.PolicyKey, c.StampKey, c.Policy, c.State, c.Socket, c.Log.Level, c.Log.Format}, "\n")
}

func TestServersThatPortalsAreToldOf(t *testing.T) {
	cfg, err := load(t, strings.Replace(string(Server("example.org", "h:443", ":443", "policy.key", "ca.key")), "# servers", "servers", 1))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"netport.example.org", "192.0.2.10:443"}; !slices.Equal(cfg.Servers, want) {
		t.Errorf("servers %q, want %q", cfg.Servers, want)
	}
}

func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	base := string(Server("example.org", "h:443", ":443", "policy.key", "ca.key"))
	for _, c := range []struct{ from, to, want string }{
		{`domain = "example.org"`, `domain = "Example"`, `config.toml:8:10: domain: name "Example"`},
		{`domain = "example.org"`, ``, `config.toml: domain: empty name`},
		{`address = "h:443"`, `address = "h"`, `config.toml:12:11: address: "h" is not HOST:PORT`},
		{`address = "h:443"`, `address = ":443"`, `portals need a host to dial`},
		{`address = "h:443"`, `address = "h:65536"`, `port "65536" is not a number from 1 to 65535`},
		{`address = "h:443"`, `address = "2001:db8::1:443"`, `is not HOST:PORT (IPv6 in brackets)`},
		{`# servers = ["netport.example.org", "192.0.2.10:443"]`, `servers = ["netport.example.org", "192.0.2.10:0"]`, `config.toml:27:35: server "192.0.2.10:0"`},
		{`# servers = ["netport.example.org", "192.0.2.10:443"]`, "servers = [" + strings.Repeat(`"h",`, 17) + "]", `17 servers: at most 16`},
		{`listen = [":443"]`, `listen = []`, `at least one address`},
		{`listen = [":443"]`, `listen = [":443", "127.1:443"]`, `config.toml:13:19: listen: "127.1" is neither an IP address nor a DNS name`},
		{`listen = [":443"]`, `listen = ["[fe80::1%eth0]:443"]`, `an address with a zone`},
		{`# hand_over = "/run/netport-relay/shared.sock"`, `hand_over = "` + strings.Repeat("s", 108) + `"`, `config.toml:23:13: hand_over: the path has `},
		{`listen = [":443"]`, `listen = [":0"]`, `port "0"`},
		{`listen = [":443"]`, `listen = [":+443"]`, `port "+443"`},
		{`log_level  = "info"`, `log_level = "loud"`, `log level "loud": use debug, info, warn or error`},
		{`log_format = "text"`, `log_format = "xml"`, `log format "xml": use text or json`},
		{`# metrics = "127.0.0.1:9400"`, `metrics = "192.0.2.1:9400"`, `metrics are not served at 192.0.2.1:9400, where others can reach it`},
		{`certificate_life = "30d"`, `certificate_life = "30s"`, `certificate_life: a certificate lasts a minute to 10 years`},
		{`certificate_life = "30d"`, `certificate_life = "11y"`, `certificate_life: a certificate lasts a minute to 10 years`},
		{`certificate_life = "30d"`, `certificate_life = "a month"`, `certificate_life: "a month" is no length of time`},
		{`certificate_life = "30d"`, `certificate_life = 30`, `wrong type`},
		{`certificate_life = "30d"`, `certificate_days = 365`, `unknown key "certificate_days"`},
		{`renew_after_expiry = "90d"`, `renew_after_expiry = "-1h"`, `renew_after_expiry: "-1h" is no length of time`},
		{`ca_key = "ca.key"`, `ca_command = [""]`, `ca_command: the first part is the program to run`},
		{`sessions_per_portal = 1000`, `sessions_per_portal = -1`, `sessions_per_portal is 1 to 100000`},
		{`stamp_key =`, `stamp_kye =`, `unknown key "stamp_kye"; did you mean "stamp_key"?`},
	} {
		if !strings.Contains(base, c.from) {
			t.Fatalf("the file has no %q", c.from)
		}
		_, err := load(t, strings.Replace(base, c.from, c.to, 1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.to, err, c.want)
		}
	}
}

func TestAddressOfInit(t *testing.T) {
	for s, want := range map[string][2]string{
		"netport.example.org":      {"netport.example.org:443", ":443"},
		"netport.example.org:8443": {"netport.example.org:8443", ":8443"},
		"192.0.2.1":                {"192.0.2.1:443", ":443"},
		"192.0.2.1:1":              {"192.0.2.1:1", ":1"},
		"2001:db8::1":              {"[2001:db8::1]:443", ":443"},
		"[2001:db8::1]":            {"[2001:db8::1]:443", ":443"},
		"[2001:db8::1]:65535":      {"[2001:db8::1]:65535", ":65535"},
		"127.0.0.1:8443":           {"127.0.0.1:8443", "127.0.0.1:8443"},
		"::1":                      {"[::1]:443", "[::1]:443"},
	} {
		address, listen, err := ParseAddress(s)
		if got := [2]string{address, listen}; err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", ":443", "h:", "h:0", "h:65536", "h:-1", "h: 80", "h:80a", "127.1", "0x7f.0.0.1:443", "Host:443", "h:1:2", "[fe80::1%eth0]:443", "fe80::1%eth0", "http://h:443", "a b:443"} {
		if address, _, err := ParseAddress(s); err == nil {
			t.Errorf("%q is taken for %q", s, address)
		}
	}
}
