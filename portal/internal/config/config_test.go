package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/portal/internal/users"
	"github.com/netport/netport/proto/conffile/conffiletest"
	"github.com/netport/netport/proto/endpoint"
)

func TestReferenceFileShowsEveryKey(t *testing.T) {
	everything := conffiletest.Reference(t, "reference.toml", func() any { raw := defaults(); return &raw }, "servers", "policy_key")
	text := string(everything)
	if !users.Supported {
		text = strings.Replace(text, "\nusers = ", "\n# users = ", 1)
	}
	c, _, err := load(t, strings.Replace(text, `users = ["ann", 1000]`, `users = ["root", 1000]`, 1))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"netport.example.org:443", "netport-2.example.org"}; !cmp.Equal(c.Servers, want) {
		t.Errorf("servers %q, want %q", c.Servers, want)
	}
	if through := c.Proxy.Through("netport.example.org:443"); through == nil || through.String() != "http://proxy.example.org:3128" {
		t.Errorf("the server is reached through %v", through)
	}
	if len(c.PolicyKey) != 32 || c.Socket != "/run/netport/portal.sock" {
		t.Errorf("policy key of %d bytes, socket %q", len(c.PolicyKey), c.Socket)
	}
	if err := c.Dial.Target(endpoint.MustParse("tcp://10.0.0.6:22")); err == nil {
		t.Error("the dial list admits a host it does not name")
	}
	if err := c.Listen.Listen(endpoint.MustParse("tcp://0.0.0.0:22")); err == nil {
		t.Error("the listen list admits an address it does not name")
	}
}

func TestEnvironmentHasMoreWeightThanTheFile(t *testing.T) {
	t.Setenv("NETPORT_PORTAL_LINGER", "5m")
	t.Setenv("NETPORT_PORTAL_DIAL_ALLOW", `["tcp://10.0.0.5:80"]`)
	t.Setenv("NETPORT_PORTAL_STATE", "elsewhere")
	c, dir, err := load(t, minimal+"linger = \"1m\"\ndrain = \"5s\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Linger != 5*time.Minute || c.Drain != 5*time.Second || c.State != filepath.Join(dir, "elsewhere") {
		t.Errorf("linger %v, drain %v, state %s", c.Linger, c.Drain, c.State)
	}
	if c.Dial.Target(endpoint.MustParse("tcp://10.0.0.5:80")) != nil || c.Dial.Target(endpoint.MustParse("tcp://10.0.0.6:80")) == nil {
		t.Error("the list of the environment does not hold")
	}
	t.Setenv("NETPORT_PORTAL_DIAL_ALLOW", `["tcp://10.0.0.5:80", "tcp://127.1:80"]`)
	if _, _, err := load(t, minimal); err == nil || !strings.HasPrefix(err.Error(), `environment variable NETPORT_PORTAL_DIAL_ALLOW: rule "tcp://127.1:80"`) {
		t.Errorf("a wrong rule there: %v", err)
	}
}

const minimal = `servers = ["127.0.0.1:7000"]
policy_key = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
`

func load(t *testing.T, text string) (Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	return c, dir, err
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	c, dir, err := load(t, minimal+"key = \"/secret/key.pem\"\nsocket = \"s\"\n")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Certificate, c.Key, c.CA, c.State, c.Socket}
	want := []string{filepath.Join(dir, "cert.pem"), "/secret/key.pem", filepath.Join(dir, "ca.pem"), filepath.Join(dir, "state"), filepath.Join(dir, "s")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTimesOfForwardedConnections(t *testing.T) {
	for text, want := range map[string][2]time.Duration{
		minimal: {2 * time.Minute, 10 * time.Second},
		minimal + "linger = \"1s\"\ndrain = \"0s\"\n":  {time.Second, 0},
		minimal + "linger = \"24h\"\ndrain = \"1m\"\n": {24 * time.Hour, time.Minute},
	} {
		c, _, err := load(t, text)
		if got := [2]time.Duration{c.Linger, c.Drain}; err != nil || got != want {
			t.Errorf("%q: linger and drain %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestEmptyListAdmitsNothingAndNoListAdmitsAll(t *testing.T) {
	target := endpoint.MustParse("tcp://10.0.0.5:80")
	for text, want := range map[string]bool{
		minimal:                                              true,
		minimal + "[dial]\n":                                 true,
		minimal + "[dial]\nallow = []\n":                     false,
		minimal + "dial = { allow = [] }\n":                  false,
		minimal + "dial.allow = []\n":                        false,
		minimal + "[listen]\nallow = []\n":                   true,
		"\ufeff" + strings.ReplaceAll(minimal, "\n", "\r\n"): true,
	} {
		c, _, err := load(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if err := c.Dial.Target(target); (err == nil) != want {
			t.Errorf("%q: dialling is %v, want admitted %t", text, err, want)
		}
	}
}

func TestUsersThatMayConnect(t *testing.T) {
	for text, want := range map[string]users.List{
		minimal:                                                   {},
		minimal + "[listen]\nallow = []\n":                        {},
		minimal + "[listen]\nusers = []\n":                        users.NewList(),
		minimal + "listen.users = [\"root\"]\n":                   users.NewList(0),
		minimal + "[listen]\nusers = [\"root\", 1000, 1000000]\n": users.NewList(0, 1000, 1_000_000),
	} {
		c, _, err := load(t, text)
		if !users.Supported && want.Written() {
			if err == nil || !strings.Contains(err.Error(), "does not tell which user connects") {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(c.Users, want) {
			t.Errorf("%q: users %v, %v, want %v", text, c.Users, err, want)
		}
	}
}

func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "no server",
		"servers = []":          ":1:",
		"servers = [\"\"]":      "write HOST:PORT",
		"servers = [\"a:80a\"]": ":1:12: server \"a:80a\": the port",
		"servers = [\"a:0\"]":   "the port is not a number",
		"servers = [\"2001:db8::1:443:1:1:1:1:1\"]":            "brackets",
		"servers = [\"http://a\"]":                             "server",
		"servers = \"a\"":                                      "wrong type",
		"servers = [\"a\"]":                                    "no policy key",
		"servers = [\"a\"]\npolicy_key = \"x\"":                ":2:14: \"x\" is no public key",
		minimal + "alow = 1":                                   "unknown key \"alow\"",
		minimal + "[dial]\nalow = []":                          "did you mean \"allow\"",
		minimal + "[dial]\nallow = [\n\"tcp://127.1:80\"]":     ":5:1: rule \"tcp://127.1:80\"",
		minimal + "[listen]\nallow = [\"tcp://10.0.0.1/8:*\"]": "write 10.0.0.0/8",
		minimal + "[listen]\nusers = [\"no-such-user\"]":       ":4:10: no user \"no-such-user\"",
		minimal + "[listen]\nusers = [\"root\", -1]":           ":4:18: -1 is no user id",
		minimal + "[listen]\nusers = [true]":                   ":4:10: true is no user",
		minimal + "[listen]\nusers = \"ann\"":                  "wrong type",
		minimal + "[listen]\nusers = [4294967295]":             "4294967295 is no user id",
		minimal + "[dial]\nusers = [0]":                        "unknown key \"dial.users\"",
		minimal + "log_level = \"loud\"":                       "log level \"loud\"",
		minimal + "log_format = \"xml\"":                       "log format \"xml\"",
		minimal + "metrics_file = \"netport.txt\"":             "metrics_file \"netport.txt\": a node exporter reads only",
		minimal + "lan = true\ndirect = false":                 "needs direct = true",
		minimal + "linger = \"2\"":                             ":3:10: linger \"2\" is no duration",
		minimal + "linger = \"25h\"":                           "from 1s to 24h0m0s",
		minimal + "linger = \"0s\"":                            "from 1s to 24h0m0s",
		minimal + "linger = 120":                               "wrong type",
		minimal + "drain = \"-1s\"":                            "from 0s to 1m0s",
		minimal + "drain = \"2m\"":                             "from 0s to 1m0s",
		minimal + "key = \"\"":                                 "key \"key\" is empty",
		minimal + "ca = 1\n":                                   "wrong type",
		minimal + "ca = \"a\"\nca = \"b\"\n":                   "ca",
		minimal + "x = [":                                      ":3:",
		"\xff\xfes\x00":                                        "UTF-8",
	} {
		_, _, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n%v\nwant an error with %q", text, err, want)
		}
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a folder as the file: %v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}
