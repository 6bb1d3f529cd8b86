package proxy_test

import (
	"strings"
	"testing"

	"github.com/netport/netport/proto/proxy"
)

func TestSettings(t *testing.T) {
	for setting, want := range map[string]string{
		"http://p:3128": "http://p:3128", "p:3128": "http://p:3128", "http://p": "http://p:80", "https://p/": "https://p:443",
		"socks5://ann:secret@p": "socks5://p:1080", "socks5h://[2001:db8::1]:9": "socks5://[2001:db8::1]:9",
	} {
		s, err := proxy.New(setting, "", nil)
		if err != nil {
			t.Errorf("%s: %v", setting, err)
		} else if got := s.String(); got != want {
			t.Errorf("%s is %s, not %s", setting, got, want)
		}
	}
	for _, setting := range []string{
		"ftp://ann:secret@p", "http://", "http://ann:secret@", "http://ann:secret@p:0", "http://ann:secret@p:99999", "http://ann:sec%zzret@p", "http://ann:secret@p/x", "http://ann:secret@p?x",
		"http://ann:secret%0d%0aX@p", "http://a%3An:secret@p", "http://:secret@p", "http://ann:" + strings.Repeat("secret", 50) + "@p",
	} {
		if s, err := proxy.New(setting, "", nil); err == nil {
			t.Errorf("%s is taken as %v", setting, s)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has the password: %v", setting, err)
		}
	}
	for setting, file := range map[string]string{"": "f", "http://p": "f", "http://ann:secret@p": "f"} {
		if _, err := proxy.New(setting, file, nil); err == nil {
			t.Errorf("%q is taken with a file for a password", setting)
		}
	}
	for setting, want := range map[string]bool{"http://ann:x@p": true, "ann:x@p": true, "http://ann@p:1": false, "p:1": false, "environment": false} {
		if got := proxy.HasPassword(setting); got != want {
			t.Errorf("%s has a password: %v", setting, got)
		}
	}
}

// The environment counts only where it is asked for (threat T40), and as curl and Go read it.
func TestEnvironment(t *testing.T) {
	environment := func(v map[string]string) func(string) string {
		return func(name string) string { return v[name] }
	}
	all := map[string]string{"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://other:1", "ALL_PROXY": "socks5://q:2"}
	if s, err := proxy.New("", "", environment(all)); err != nil || s != nil {
		t.Errorf("without being asked for: %v, %v", s, err)
	}
	for name, want := range map[string]string{"HTTPS_PROXY": "http://p:1", "https_proxy": "http://p:1", "ALL_PROXY": "http://p:1", "all_proxy": "http://p:1", "HTTP_PROXY": ""} {
		s, err := proxy.New(proxy.Environment, "", environment(map[string]string{name: "p:1"}))
		got := ""
		if p := s.Through("a.example:443"); p != nil {
			got = p.String()
		}
		if err != nil || got != want {
			t.Errorf("%s leads to %q, not %q: %v", name, got, want, err)
		}
	}
	all["NO_PROXY"] = "192.0.2.0/24, 198.51.100.7,lan,.sub.example, *.star.example,[2001:db8::5]:443, ported.example:8443,"
	s, err := proxy.New(proxy.Environment, "", environment(all))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"a.example:443": true, "192.0.2.9:443": false, "[::ffff:192.0.2.9]:443": false, "192.0.3.9:443": true, "198.51.100.7:1": false, "198.51.100.70:1": true,
		"lan:443": false, "LAN:443": false, "a.lan:443": false, "a.lan.:443": false, "plan:443": true, "sub.example:443": true, "a.sub.example:443": false, "a.star.example:443": false,
		"[2001:db8::5]:443": false, "[2001:db8::5]:80": true, "ported.example:8443": false, "ported.example:443": true,
		"localhost:443": false, "127.0.0.9:443": false, "[::1]:443": false,
	} {
		if got := s.Through(address) != nil; got != want {
			t.Errorf("%s goes through the proxy: %v", address, got)
		}
	}
	all["NO_PROXY"] = "*"
	if s, err := proxy.New(proxy.Environment, "", environment(all)); err != nil || s.Through("a.example:443") != nil {
		t.Errorf("nothing was to go through it: %v", err)
	}
}
