package strict

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
)

// TestLargestPolicyIsSigned: one of as many grants as a policy may come to, and what
// comes of it fits the request in which it is installed.
func TestLargestPolicyIsSigned(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := identitytest.New(t).Certificate
	q := Request{
		Domain: "example.org", PolicyKey: grant.FormatKey(public), Version: 1,
		Authorities: wire.Authorities{Version: 1, Certificates: [][]byte{root.Raw}}.AppendTo(nil),
	}
	known := Known{Domain: q.Domain, Authorities: []identity.KeyHash{identity.HashKey(root)}, Portals: make(map[string][]identity.KeyHash)}
	portals := 100
	for i := range portals {
		p := Portal{Name: fmt.Sprintf("portal-with-a-long-name-%03d", i), Key: identity.KeyHash{1, byte(i)}}
		q.Portals = append(q.Portals, p)
		known.Portals[p.Name] = []identity.KeyHash{p.Key}
	}
	var b strings.Builder
	b.WriteString("domain = \"example.org\"\n")
	for n := range policy.MaxGrants / 1000 {
		fmt.Fprintf(&b, "[[forward]]\nname = \"forward-%d\"\nfrom = %q\nto = %q\n", n,
			fmt.Sprintf("%s tcp://127.0.0.1:10001-11000", q.Portals[n%portals].Name), fmt.Sprintf("%s tcp://database.plant.example.org:20001-21000", q.Portals[(n+1)%portals].Name))
	}
	r, err := Job{Request: q, File: "policy.toml", Source: []byte(b.String()), Key: key, Known: known}.Sign(time.Now())
	if err != nil || r.Grants != policy.MaxGrants {
		t.Fatalf("%d grants, %v, %v", r.Grants, r.Strangers, err)
	}
	o, err := Open(r.Signed, q.Domain, public)
	if err != nil || len(o.Permissions) != r.Grants {
		t.Fatalf("%d permissions, %v", len(o.Permissions), err)
	}
	t.Logf("%d bytes", len(r.Signed.Body))
}
