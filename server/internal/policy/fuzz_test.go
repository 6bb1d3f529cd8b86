package policy

import (
	"errors"
	"testing"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
)

// FuzzParse looks for text that crashes the parser, and for a policy that is
// accepted and grants what cannot be signed.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(forward(name, from, to, "until = 2027-01-31", "proxy_protocol = 1", `relay = "r"`)))
	f.Add([]byte("domain = \"d\"\ngroups = {g = [\"a\"], \"h.i\" = []}\n[[test]]\ndeny = \"a stdio: -> b tcp://[::1]:1\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse("policy.toml", b, now)
		if err != nil {
			var at *conffile.Error
			if !errors.As(err, &at) {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		enrolled := make(map[string]identity.KeyHash)
		for _, at := range p.used {
			enrolled[at.name] = identity.KeyHash{1}
		}
		for _, g := range p.Grants(enrolled, now) {
			if err := g.Check(); err != nil {
				t.Fatalf("granted and not to be signed: %v", err)
			}
		}
		p.Test(now)
		p.WarningLines()
	})
}
