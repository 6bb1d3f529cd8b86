package conffile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// settings are a configuration of all kinds of values.
type settings struct {
	Name    string   `toml:"name"`
	Port    int      `toml:"port"`
	Loud    bool     `toml:"loud"`
	Servers []string `toml:"servers"`
	Dial    struct {
		Allow []string `toml:"allow"`
		Users []any    `toml:"users"`
	} `toml:"dial"`
}

func readSettings(t *testing.T, text string, variables ...string) (settings, *File, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings{Name: "default", Servers: []string{"a", "b", "c"}}
	f, err := LoadWith(name, "", Environment{"NP_", append([]string{"PATH=/bin", "NETPORT=x"}, variables...)}, &s)
	return s, f, err
}

func TestVariablesReplaceValuesOfTheFile(t *testing.T) {
	want := settings{Name: "file", Port: 1, Servers: []string{"a", "b", "c"}}
	for _, tt := range []struct {
		variable string
		change   func(*settings)
	}{
		{"NP_NAME=plain text", func(s *settings) { s.Name = "plain text" }},
		{"NP_NAME=", func(s *settings) { s.Name = "" }},
		{`NP_NAME="quoted\ttext"`, func(s *settings) { s.Name = "quoted\ttext" }},
		{"NP_NAME='literal'", func(s *settings) { s.Name = "literal" }},
		{"NP_NAME=a = b\nport = 9", func(s *settings) { s.Name = "a = b\nport = 9" }},
		{"NP_PORT=8", func(s *settings) { s.Port = 8 }},
		{"NP_LOUD=true", func(s *settings) { s.Loud = true }},
		{`NP_SERVERS=["x"]`, func(s *settings) { s.Servers = []string{"x"} }},
		{"NP_SERVERS=[\n\"x\", # first\n]", func(s *settings) { s.Servers = []string{"x"} }},
		{"NP_SERVERS=[]", func(s *settings) { s.Servers = []string{} }},
		{`NP_DIAL_ALLOW=["tcp://h:1"]`, func(s *settings) { s.Dial.Allow = []string{"tcp://h:1"} }},
		{`NP_DIAL_USERS=["ann", 7]`, func(s *settings) { s.Dial.Users = []any{"ann", int64(7)} }},
		// Of a service that is called like the role: Kubernetes says it to every container.
		{"NP_SERVICE_HOST=10.0.0.1", func(*settings) {}},
		{"NP_SERVICE_PORT=443", func(*settings) {}},
		{"NP_SERVICE_PORT_HTTPS=443", func(*settings) {}},
		{"NP_PORT_443_TCP=tcp://10.0.0.1:443", func(*settings) {}},
		{"NP_PORT_443_TCP_ADDR=10.0.0.1", func(*settings) {}},
	} {
		got, _, err := readSettings(t, "name = \"file\"\nport = 1\n", tt.variable)
		want := want
		tt.change(&want)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v, %s", tt.variable, err, diff)
		}
	}
}

func TestMistakesInVariablesAreNamedByThem(t *testing.T) {
	for _, tt := range []struct{ variable, want string }{
		{"NP_PROT=8", "environment variable NP_PROT: it names no key of the configuration; did you mean NP_PORT?"},
		{"NP_ALOW=8", "environment variable NP_ALOW: it names no key of the configuration"},
		{"NP_DIAL_ALOW=[]", "environment variable NP_DIAL_ALOW: it names no key of the configuration; did you mean NP_DIAL_ALLOW?"},
		{"NP_=8", "environment variable NP_: it names no key"},
		{"NP_port=8", "environment variable NP_port: it names no key"},
		{"NP_PORT=many", "environment variable NP_PORT: "},
		{"NP_PORT=", "environment variable NP_PORT: "},
		{`NP_PORT="8"`, `environment variable NP_PORT: key "port": a value of the wrong type: a whole number is needed`},
		{"NP_PORT=8\nloud = true", "environment variable NP_PORT: it holds more than one value"},
		{"NP_PORT=8\nlaud = true", "environment variable NP_PORT: "},
		{`NP_SERVERS=a`, "environment variable NP_SERVERS: "},
		{`NP_SERVERS="a"`, `environment variable NP_SERVERS: key "servers": a value of the wrong type: a list of texts like ["a", "b"] is needed`},
		{`NP_NAME="open`, "environment variable NP_NAME: "},
		{"NP_NAME='a\x1b[2J'", "environment variable NP_NAME: "},
	} {
		_, _, err := readSettings(t, "", tt.variable)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v\nwant %s", tt.variable, err, tt.want)
		}
	}
}

func TestMistakesOfMeaningNameWhatHasTheValue(t *testing.T) {
	_, f, err := readSettings(t, "port = 1\nservers = [\"x\"]\n", `NP_SERVERS=["x", "y"]`, `NP_DIAL_ALLOW=[]`)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"servers[1]": "environment variable NP_SERVERS: bad",
		"dial.allow": "environment variable NP_DIAL_ALLOW: bad",
		"port":       f.Name + ":1:8: bad\n    1 | port = 1\n      |        ^",
	} {
		if got := f.Errorf(key, "bad").Error(); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", key, got, want)
		}
	}
	if !f.Has("dial.allow") || f.Has("dial.users") {
		t.Error("what a variable sets is not known as set, or the other way round")
	}
}

func TestEnvironmentAloneIsEnoughWhereNoFileWasNamed(t *testing.T) {
	standard := filepath.Join(t.TempDir(), "config.toml")
	e := Environment{"NP_", []string{"NP_NAME=a"}}
	var s settings
	f, err := LoadWith(standard, standard, e, &s)
	if err != nil || s.Name != "a" || f.Path("x") != filepath.Join(filepath.Dir(standard), "x") {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := LoadWith(standard, "/etc/other.toml", e, &s); err == nil {
		t.Error("a file that was named and is not there is passed over")
	}
	if _, err := LoadWith(standard, standard, Environment{Prefix: "NP_"}, &s); err == nil {
		t.Error("with neither file nor variable there is a configuration")
	}
}

func TestKeysInAnotherTableAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"allow = []":              `unknown key "allow"; it is a key of [dial]`,
		"[dial]\nport = 1":        `unknown key "dial.port"; it is a key of no table: it stands above the first [table]`,
		"[dial]\nalow = []":       `unknown key "dial.alow"; did you mean "allow"?`,
		"nothing_like_it = 1":     `unknown key "nothing_like_it"` + "\n",
		"servers = \"a\"":         `a list of texts like ["a", "b"] is needed`,
		"dial = 1":                `a table is needed`,
		"loud = 1":                `true or false is needed`,
		"name = [\"a\"]":          `a text in quotes is needed`,
		"[dial]\nallow = [1, 2]":  `:2:`,
		"[dial]\nallow = 1.5\n\n": `a list of texts`,
	} {
		if _, _, err := readSettings(t, text); err == nil || !strings.Contains(err.Error()+"\n", want) {
			t.Errorf("%q:\n%v\nwant %s", text, err, want)
		}
	}
}
