package allow

import (
	"testing"

	"github.com/netport/netport/proto/endpoint"
)

// FuzzParse has rules of an owner's list, and targets: a rule has one writing, and without one that names it no
// target that is forbidden is admitted.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"tcp://10.0.0.5:80", "tcp://db.lan:*", "udp://10.0.0.0/8:*", "tcp://[2001:db8::/32]:443", "unix:///run/app/*", "stdio:"} {
		f.Add(s, "tcp://169.254.169.254:80")
	}
	f.Fuzz(func(t *testing.T, text, target string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q became %+v, %v", text, again, err)
		}
		e, err := endpoint.Parse(target)
		if err != nil {
			return
		}
		if with, without := NewList(r).Target(e), (List{}).Target(e); with == nil && without != nil && r.exact != e && !r.prefix.IsValid() {
			t.Fatalf("%q admits %q, which is %v", text, target, without)
		}
	})
}
