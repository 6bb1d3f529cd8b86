package strict

import (
	"crypto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
)

// asking is a request as a server passes it on, which may say anything beside it.
func asking(t *testing.T, id identity.ID) (CertificateRequest, crypto.Signer) {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewRequest(id, key)
	if err != nil {
		t.Fatal(err)
	}
	return CertificateRequest{Role: id.Role, Name: id.Name, Key: identity.HashPublic(key.Public()), Request: csr, Since: time.Now()}, key
}

// TestHostileServerGetsNoCertificate: the machine with the CA key believes a server that
// was taken over in nothing.
func TestHostileServerGetsNoCertificate(t *testing.T) {
	const domain = "example.org"
	authority, err := ca.New(domain, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	portal := func(name string) identity.ID { return identity.ID{Domain: domain, Role: identity.Portal, Name: name} }
	ann, _ := asking(t, portal("ann"))
	known := Known{Domain: domain, Portals: map[string][]identity.KeyHash{"ann": {ann.Key}}}
	mallory, _ := asking(t, portal("ann"))
	sign := func(accepted map[string][]identity.KeyHash, list ...CertificateRequest) CertificateResult {
		t.Helper()
		r, err := CertificateJob{Requests: CertificateRequests{Domain: domain, Requests: list}, Authority: authority, Life: time.Hour, Known: known, Accepted: accepted}.Sign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Made) != len(r.Signed.Certificates) {
			t.Errorf("%d were made, %d signed", len(r.Made), len(r.Signed.Certificates))
		}
		return r
	}

	// A request that claims another's key, name or role beside it is what it holds.
	lying := mallory
	lying.Key = ann.Key
	if r := sign(nil, lying); len(r.Made) != 0 || len(r.Strangers) != 1 || r.Strangers[0].Key != mallory.Key || !r.Strangers[0].Other {
		t.Errorf("a key in another's place: %+v", r)
	}
	other, _ := asking(t, portal("bo"))
	lying = other
	lying.Name, lying.Key = "ann", ann.Key
	if r := sign(nil, lying); len(r.Made) != 0 {
		t.Errorf("a name in another's place: %+v", r.Made)
	}
	// A portal's key that is accepted is no server's, nor a relay's.
	for _, role := range []identity.Role{identity.Server, identity.Relay, identity.Admin} {
		q, _ := asking(t, identity.ID{Domain: domain, Role: role, Name: "ann"})
		if r := sign(map[string][]identity.KeyHash{"ann": {q.Key}}, q); len(r.Made) != 0 || len(r.Strangers) != 1 {
			t.Errorf("a %s: %+v", role, r)
		}
	}
	// An admin's is made on the operator's word alone, and is no portal's.
	admin, _ := asking(t, identity.ID{Domain: domain, Role: identity.Admin, Name: "root"})
	if r := sign(nil, admin); len(r.Made) != 0 || len(r.Strangers) != 1 || !strings.HasPrefix(r.Strangers[0].Flag(), "--accept admin/root=") {
		t.Errorf("an admin nobody has accepted: %+v", r)
	}
	if r := sign(map[string][]identity.KeyHash{"admin/root": {admin.Key}}, admin); len(r.Made) != 1 || !slices.Contains(r.Known.Admins["root"], admin.Key) || r.Known.Portals["root"] != nil {
		t.Errorf("an accepted admin: %+v", r)
	}
	elsewhere, _ := asking(t, identity.ID{Domain: "example.com", Role: identity.Portal, Name: "ann"})
	broken := ann
	broken.Request = append([]byte(nil), ann.Request...)
	broken.Request[len(broken.Request)-1] ^= 1 // nobody has proven the key
	future := ann
	future.Begin = time.Now().Add(time.Hour)
	r := sign(map[string][]identity.KeyHash{"ann": {elsewhere.Key}}, elsewhere, broken, future, CertificateRequest{Request: []byte("x")})
	if len(r.Made) != 0 || len(r.Refused) != 4 {
		t.Errorf("made %+v, refused %v", r.Made, r.Refused)
	}

	// Beside all that the right one is signed: for its key, as long as the operator says.
	r = sign(nil, mallory, ann, broken)
	if len(r.Made) != 1 || len(r.Strangers) != 1 || len(r.Refused) != 1 {
		t.Fatalf("%+v", r)
	}
	chain, err := identity.ParseChain(r.Signed.Certificates[0].Chain)
	if err != nil || identity.HashKey(chain[0]) != ann.Key || time.Until(chain[0].NotAfter) > time.Hour {
		t.Errorf("signed %v, %v", chain, err)
	}
	if got := r.Known.Portals["ann"]; len(got) != 1 {
		t.Errorf("known are %v", got)
	}
	// What was accepted is known from then on, in the file too.
	r = sign(map[string][]identity.KeyHash{"bo": {other.Key}}, other)
	if len(r.Made) != 1 || len(known.Portals["bo"]) != 0 || len(r.Known.Portals["bo"]) != 1 {
		t.Errorf("accepted: %+v", r)
	}
	file := t.TempDir() + "/known.toml"
	relay, _ := asking(t, identity.ID{Domain: domain, Role: identity.Relay, Name: "relay-1"})
	known = r.Known
	r = sign(map[string][]identity.KeyHash{"relay/relay-1": {relay.Key}}, relay)
	if err := r.Known.Save(file); err != nil {
		t.Fatal(err)
	}
	read, err := LoadKnown(file)
	if err != nil || len(read.Portals["bo"]) != 1 || len(read.Relays["relay-1"]) != 1 {
		t.Errorf("read back %+v, %v", read, err)
	}
	if _, err := (CertificateJob{Requests: CertificateRequests{Domain: "example.com"}, Authority: authority, Known: known}).Sign(t.Context()); err == nil || !strings.Contains(err.Error(), "example.com") {
		t.Errorf("requests of another domain: %v", err)
	}
}
