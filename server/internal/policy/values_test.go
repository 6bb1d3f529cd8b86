package policy

import (
	"testing"
)

// FuzzValues has the texts in a policy that stand for something else: what is read is written as itself.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"50GB", "1KiB", "mon-fri 08:00-18:00", "sat,sun 22:00-06:00", "192.168.7.0/24", "2001:db8::7", "ann tcp://127.0.0.1:8000-8010", "b unix:///run/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil {
			if again, err := parseSize(sizeText(n)); err != nil || again != n || n == 0 {
				t.Fatalf("size %q is %d, written %s: %d, %v", s, n, sizeText(n), again, err)
			}
		}
		if w, err := parseWindow(s); err == nil {
			if again, err := parseWindow(w.String()); err != nil || again != w {
				t.Fatalf("window %q is written %s: %v, %v", s, w, again, err)
			}
		}
		if p, err := parsePrefix(s); err == nil {
			if again, err := parsePrefix(p.String()); err != nil || again != p {
				t.Fatalf("prefix %q is written %s: %v, %v", s, p, again, err)
			}
		}
		if name, e, err := parseEnd(s); err == nil {
			if n, again, err := parseEnd(name + " " + e.String()); err != nil || again != e || n != name {
				t.Fatalf("end %q is written %s %s: %v, %v", s, name, e, again, err)
			}
		}
	})
}
