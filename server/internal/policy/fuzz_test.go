package policy

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
)

// FuzzParse looks for text that crashes the parser, and for a policy that is
// accepted and grants what cannot be signed, or denies what it grants.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(complete))
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
		open := make(Openings)
		for _, f := range p.Forwards {
			if o, err := p.Open(f.Name, "", "ann", time.Minute, now); err == nil {
				open[o.Key()] = o
			}
		}
		for _, g := range p.Grants(enrolled, open, now) {
			if err := g.Check(); err != nil {
				t.Fatalf("granted and not to be signed: %v", err)
			}
			asked := pair{g.Entry.Name, g.Listen, g.Exit.Name, g.Target}.String()
			if a, err := p.Explain(asked, now, netip.Addr{}, open); err != nil || a.Forward != g.Forward || a.Allowed != g.Hours.Open(now) {
				t.Fatalf("%s is granted by %q, and explained as %+v, %v", asked, g.Forward, a, err)
			}
		}
		p.Compare(nil, now)
		p.Test(now)
		p.WarningLines()
	})
}
