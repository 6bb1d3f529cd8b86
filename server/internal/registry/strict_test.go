package registry

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// openStrict opens a registry that has only the public half of the policy key.
func openStrict(t *testing.T, file string) (*Registry, store.Store) {
	t.Helper()
	s, err := store.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r, err := OpenStrict("example.org", s, signer("policy").Public().(ed25519.PublicKey), clock)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

// signed is what an operator's machine makes of a policy for the portals of now.
func signed(t *testing.T, r *Registry, source string, version uint64, by ed25519.PrivateKey) (*policy.Policy, []grant.Grant) {
	t.Helper()
	p, err := policy.Parse("policy.toml", []byte(source), now)
	if err != nil {
		t.Fatal(err)
	}
	list := Permissions(p, r.Portals(), now)
	for i := range list {
		list[i].Version = version
	}
	return p, Sign(list, by)
}

// TestStrictRegistryHoldsOnlyWhatWasSigned: it grants nothing by itself, whatever happens
// to the portals; what it cannot grant waits, what is to go goes, also after a restart.
func TestStrictRegistryHoldsOnlyWhatWasSigned(t *testing.T) {
	file := create(t)
	r, s := openStrict(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	if _, err := apply(r, text(web)); !errors.Is(err, ErrStrict) {
		t.Errorf("apply: %v", err)
	}
	if _, _, err := r.Allow("web", "", "ann", time.Hour); !errors.Is(err, ErrStrict) {
		t.Errorf("allow: %v", err)
	}
	source := text(web, ssh)
	p, foreign := signed(t, r, source, 1, signer("thief"))
	if _, err := r.Install(p, "policy.toml", []byte(source), 1, foreign); err == nil || !strings.Contains(err.Error(), "is not signed by the policy key") {
		t.Errorf("signed by another key: %v", err)
	}
	p, right := signed(t, r, source, 1, signer("policy"))
	if _, err := r.Install(p, "policy.toml", []byte(source), 2, right); err == nil {
		t.Error("permissions of another version were taken")
	}
	altered := append([]grant.Grant(nil), right...)
	altered[0].Target = altered[1].Target
	if _, err := r.Install(p, "policy.toml", []byte(source), 1, altered); err == nil {
		t.Error("an altered permission was taken")
	}
	if r.Grants() != 0 || r.Applied().Version != 0 {
		t.Fatalf("what was refused is in force: %d grants, %+v", r.Grants(), r.Applied())
	}

	// One that is not among the signed waits.
	if d, err := r.Install(p, "policy.toml", []byte(source), 1, right[:1]); err != nil || len(d.Added) != 1 || d.Waiting != 1 || r.Waiting() != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := r.Install(p, "policy.toml", []byte(source), 1, right); err == nil || !strings.Contains(err.Error(), "ask anew") {
		t.Errorf("the same version again: %v", err)
	}
	first := ids(r, "ann")
	_, right = signed(t, r, source, 2, signer("policy"))
	if d, err := r.Install(p, "policy.toml", []byte(source), 2, right); err != nil || len(d.Added) != 1 || d.Kept != 1 || r.Waiting() != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, id := range first {
		if ids(r, "ann")[name] != id {
			t.Errorf("%s has another id, though nothing of it has changed", name)
		}
	}

	// Another key: the grants of the old one go at once, those of the new one wait.
	if d := enrol(t, r, 3, "plant", true); len(d.Removed) != 2 || len(d.Added) != 0 || d.Waiting != 2 {
		t.Errorf("plant with another key: %+v", d)
	}
	s.Close()
	r, _ = openStrict(t, file)
	if r.Grants() != 0 || r.Waiting() != 2 || r.Applied().Version != 3 {
		t.Errorf("after a restart: %d grants, %d wait, version %d", r.Grants(), r.Waiting(), r.Applied().Version)
	}
}
