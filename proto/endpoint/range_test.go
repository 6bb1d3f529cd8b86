package endpoint

import (
	"strings"
	"testing"
)

func TestRangesAreConsecutivePorts(t *testing.T) {
	for _, s := range []string{"tcp://127.0.0.1:8000-8009", "udp://[2001:db8::1]:65534-65535", "tcp://db-1.lan:1-1024"} {
		r, err := ParseRange(s)
		if err != nil || r.String() != s {
			t.Fatalf("%s: read as %v, %v", s, r, err)
		}
		for i := range r.Ports {
			if e := r.At(i); e.Port() != r.First.Port()+uint16(i) || e.Host() != r.First.Host() || e.Scheme() != r.First.Scheme() {
				t.Errorf("%s: number %d is %v", s, i, e)
			}
		}
		if _, err := Parse(s); err == nil {
			t.Errorf("%s is one endpoint", s)
		}
	}
	for _, s := range good {
		if r, err := ParseRange(s); err != nil || r != (Range{MustParse(s), 1}) || r.String() != s {
			t.Errorf("%.100q: read as %v, %v", s, r, err)
		}
	}
}

func TestOddRangesAreRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"tcp://10.0.0.1:1-0", `port "0"`},
		{"tcp://10.0.0.1:0-65535", `port "0"`},
		{"tcp://10.0.0.1:8009-8000", "the ports run backwards: write 8000-8009"},
		{"tcp://10.0.0.1:8000-8000", "a range of one port: write tcp://10.0.0.1:8000"},
		{"tcp://10.0.0.1:1-1025", "1025 ports: a range has at most 1024"},
		{"tcp://10.0.0.1:65535-65536", `port "65536"`},
		{"tcp://10.0.0.1:80-", `port ""`},
		{"tcp://10.0.0.1:-80", `port ""`},
		{"tcp://10.0.0.1:080-81", `port "080"`},
		{"tcp://10.0.0.1:80-081", `port "081"`},
		{"tcp://10.0.0.1:80-81-82", `port "81-82"`},
		{"tcp://10.0.0.1:80 -81", `port "80 "`},
		{"tcp://010.0.0.1:80-81", `010.0.0.1`},
		{"unix:///run/a:1-2/", `not clean`},
		{"tcp://" + strings.Repeat("a", 400) + ":1-2", "at most 320"},
	} {
		if r, err := ParseRange(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80q: %v, %v; want %q", tt.text, r, err, tt.want)
		}
	}
	for _, s := range bad {
		if r, err := ParseRange(s); err == nil {
			t.Errorf("%.100q was read as %v", s, r)
		}
	}
	// A path may look like one.
	if r, err := ParseRange("unix:///run/a:1-2"); err != nil || r.Ports != 1 {
		t.Errorf("a path: %v, %v", r, err)
	}
}
