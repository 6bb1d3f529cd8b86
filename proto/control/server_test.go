package control

import "testing"

func TestServersAreChecked(t *testing.T) {
	for _, s := range []string{"example.org", "example.org:443", "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"} {
		if err := CheckServer(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ":443", "example.org:0", "example.org:65536", "example.org:+443", "example.org:0443", "https://example.org", "exam ple.org", "2001:db8::1:443:x"} {
		if CheckServer(s) == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
