package join

import (
	"path/filepath"
	"strings"
	"testing"
)

// A proxy that a machine joined through is that of its daemon, too; without one the configuration shows how.
func TestProxyIsWrittenDown(t *testing.T) {
	for name, text := range map[string]func(Reach) string{
		"portal": func(r Reach) string { return string(Portal(r, "ed25519:x", "")) },
		"relay":  func(r Reach) string { return string(Relay(r, "ed25519:x")) },
		"admin":  func(r Reach) string { return string(Admin(r, "ed25519:x")) },
	} {
		with := text(Reach{Servers: []string{"a.example"}, Proxy: "http://ann@p:3128", PasswordFile: "/etc/pass \"word\""})
		for _, line := range []string{"\nproxy = \"http://ann@p:3128\"\n", "\nproxy_password_file = \"/etc/pass \\\"word\\\"\"\n"} {
			if strings.Count(with, line) != 1 {
				t.Errorf("%s: not once %q in\n%s", name, line, with)
			}
		}
		if without := text(Reach{Servers: []string{"a.example"}}); strings.Contains(without, "\nproxy") || !strings.Contains(without, "\n# proxy = ") {
			t.Errorf("%s: without a proxy:\n%s", name, without)
		}
	}
}

// A password on the command line is refused without being repeated, and a file is named from anywhere.
func TestProxyOfTheCommandLine(t *testing.T) {
	for _, r := range []Reach{
		{Proxy: "http://ann:secret@p:3128"}, {Proxy: "ann:secret@p:3128"}, {Proxy: "ftp://p"}, {PasswordFile: "secret"},
	} {
		if _, err := r.settings(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	r := Reach{Proxy: "http://ann@p:3128", PasswordFile: "pass"}
	through, err := r.settings()
	if err != nil || through.String() != "http://p:3128" || !filepath.IsAbs(r.PasswordFile) {
		t.Errorf("%v, file %s: %v", through, r.PasswordFile, err)
	}
}
