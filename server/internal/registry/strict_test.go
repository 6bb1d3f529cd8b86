package registry

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
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

// signed is what an operator's machine makes of a policy for the portals of now, with
// what is open on request.
func signed(t *testing.T, r *Registry, source string, version uint64, by ed25519.PrivateKey, open ...policy.Opening) (*policy.Policy, Signed) {
	t.Helper()
	p, err := policy.Parse("policy.toml", []byte(source), now)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(policy.Openings)
	for _, o := range open {
		opened[o.Key()] = o
	}
	list := Permissions(p, r.Portals(), opened, now)
	for i := range list {
		list[i].Version = version
	}
	s := Signed{Complete: wire.GrantsComplete{Version: version}.Sign(by), Grants: Sign(list, by)}
	for _, portal := range r.Portals() {
		s.For = append(s.For, SignedPortal{portal.Name, []identity.KeyHash{portal.Key, portal.Next}})
	}
	return p, s
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
	source := text(web, ssh)
	_, foreign := signed(t, r, source, 1, signer("thief"))
	p, right := signed(t, r, source, 1, signer("policy"))
	foreignGrants, foreignVersion, otherVersion, altered := right, right, right, right
	foreignGrants.Grants = foreign.Grants
	foreignVersion.Complete = foreign.Complete
	otherVersion.Complete = wire.GrantsComplete{Version: 2}.Sign(signer("policy"))
	altered.Grants = slices.Clone(right.Grants)
	altered.Grants[0].Target = altered.Grants[1].Target
	for what, s := range map[string]Signed{
		"signed by another key": foreign, "permissions of another key": foreignGrants, "a version of another key": foreignVersion,
		"permissions of another version": otherVersion, "an altered permission": altered,
	} {
		if _, err := r.Install(p, "policy.toml", []byte(source), s); err == nil || !strings.Contains(err.Error(), "is not signed by the policy key") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.Grants() != 0 || r.Applied().Version != 0 {
		t.Fatalf("what was refused is in force: %d grants, %+v", r.Grants(), r.Applied())
	}

	// One that is not among the signed waits.
	first := right
	first.Grants = right.Grants[:1]
	if d, err := r.Install(p, "policy.toml", []byte(source), first); err != nil || len(d.Added) != 1 || d.Waiting != 1 || r.Waiting() != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := r.Install(p, "policy.toml", []byte(source), right); err == nil || !strings.Contains(err.Error(), "ask anew") {
		t.Errorf("the same version again: %v", err)
	}
	before := ids(r, "ann")
	_, right = signed(t, r, source, 2, signer("policy"))
	if d, err := r.Install(p, "policy.toml", []byte(source), right); err != nil || len(d.Added) != 1 || d.Kept != 1 || r.Waiting() != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, id := range before {
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
	if r.Grants() != 0 || r.Waiting() != 2 || r.Applied().Version != 2 {
		t.Errorf("after a restart: %d grants, %d wait, version %d", r.Grants(), r.Waiting(), r.Applied().Version)
	}
}

// installed signs a policy as a version, as all keys of now are known, and installs it.
func installed(t *testing.T, r *Registry, source string, version uint64, anew bool, open ...policy.Opening) Diff {
	t.Helper()
	p, s := signed(t, r, source, version, signer("policy"), open...)
	s.Anew = anew
	d, err := r.Install(p, "policy.toml", []byte(source), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStrictRegistryOpensWhatWasSigned: what is allowed on request waits for its
// signature, opens with it until its own end, and can be ended without one. The version is
// that of the last signature throughout, also after a restart.
func TestStrictRegistryOpensWhatWasSigned(t *testing.T) {
	file := create(t)
	r, s := openStrict(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	installed(t, r, requested, 1, false)
	o, d, err := r.Allow("shell", "ann", "cy", 2*time.Hour)
	if err != nil || len(d.Added) != 0 || d.Waiting != 1 || !slices.Equal(r.Pending(), []policy.Opening{o}) {
		t.Fatalf("allowed: %+v, %v; pending %v", d, err, r.Pending())
	}
	if d := installed(t, r, requested, 2, false); len(d.Added) != 0 || len(r.Pending()) != 1 {
		t.Errorf("signed without it: %+v, pending %v", d, r.Pending())
	}
	if d := installed(t, r, requested, 3, false, o); len(d.Added) != 1 || !d.Added[0].End.Equal(o.Until) || len(r.Pending()) != 0 {
		t.Errorf("signed: %+v, pending %v", d, r.Pending())
	}
	if d := installed(t, r, requested, 4, true); len(d.Removed) != 0 || d.Kept != 1 {
		t.Errorf("another signature, which does not name it: %+v", d)
	}
	s.Close()
	r, _ = openStrict(t, file)
	if len(r.Openings()) != 1 || len(r.Pending()) != 0 || r.Grants() != 1 {
		t.Errorf("after a restart: open %v, pending %v, %d grants", r.Openings(), r.Pending(), r.Grants())
	}
	if _, d, err := r.EndAllowed("shell", "bo"); err != nil || len(d.Removed) != 1 || d.Version != 4 {
		t.Errorf("ended: %+v, %v", d, err)
	}
	if a := r.Applied(); a.Version != 4 || !a.Complete().SignedBy(r.public) || a.Complete().Version != 4 {
		t.Errorf("version %d is told as %+v", a.Version, a.Complete())
	}
}

// TestAllIsSignedAnewWhereThatIsAsked: portals that have lost a grant to a thief take no
// grant of that version again.
func TestAllIsSignedAnewWhereThatIsAsked(t *testing.T) {
	r, _ := openStrict(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	source := text(web, ssh)
	installed(t, r, source, 1, false)
	if d := installed(t, r, source, 2, false); d.Kept != 2 || d.Version != 2 || r.Applied().Version != 2 {
		t.Errorf("the same again: %+v", d)
	}
	d := installed(t, r, source, 3, true)
	if len(d.Added) != 2 || len(d.Removed) != 2 || d.Kept != 0 {
		t.Errorf("anew: %+v", d)
	}
	for _, g := range r.Of("ann", now) {
		if g.Version != 3 {
			t.Errorf("%s is of version %d", g.Forward, g.Version)
		}
	}
	own, _ := open(t, create(t))
	enrol(t, own, 1, "ann", false)
	enrol(t, own, 2, "plant", false)
	mustApply(t, own, source)
	p, err := policy.Parse("policy.toml", []byte(source), now)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := own.Apply(p, "policy.toml", []byte(source), true); err != nil || len(d.Added) != 2 || len(d.Removed) != 2 || d.Version != 2 {
		t.Errorf("with the policy key here: %+v, %v", d, err)
	}
	if a := own.Applied(); a.Complete().Version != 2 || !a.Complete().SignedBy(own.public) {
		t.Errorf("version %d is told as %+v", a.Version, a.Complete())
	}
}

// TestNextKeyWaitsForItsSignature: a portal that wants another key keeps the grants of
// the one it has; those for the next one come with the signature.
func TestNextKeyWaitsForItsSignature(t *testing.T) {
	file := create(t)
	r, s := openStrict(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	source := text(web)
	if got := r.Unsigned(); !slices.Equal(got, []string{"ann", "plant"}) {
		t.Errorf("before the first signature: new are %q", got)
	}
	installed(t, r, source, 1, false)
	d, err := r.Propose("ann", key(1), key(7))
	if err != nil || len(d.Removed)+len(d.Added) != 0 || d.Kept != 1 || d.Waiting != 1 {
		t.Fatalf("proposed: %+v, %v", d, err)
	}
	if d, err := r.Propose("ann", key(1), key(7)); len(d.Added) != 0 || err != nil {
		t.Errorf("again: %+v, %v", d, err)
	}
	if _, err := r.Propose("ann", key(9), key(8)); err == nil {
		t.Error("proposed by a key that is not enrolled")
	}
	s.Close()
	r, _ = openStrict(t, file)
	if p, _ := r.Portal("ann"); p.Next != key(7) || !p.NextSince.IsZero() || r.Granted("ann", key(7)) || !r.Granted("ann", key(1)) {
		t.Errorf("after a restart: %+v", p)
	}
	if got := r.Unsigned(); !slices.Equal(got, []string{"ann"}) {
		t.Errorf("new keys of %q", got)
	}
	if d := installed(t, r, source, 2, false); len(d.Added) != 1 || d.Added[0].Entry.Key != key(7) || d.Kept != 1 {
		t.Errorf("signed: %+v", d)
	}
	if !r.Granted("ann", key(7)) || r.Granted("ann", key(8)) || len(r.Unsigned()) > 0 {
		t.Errorf("granted: %t, %t, new keys of %q", r.Granted("ann", key(7)), r.Granted("ann", key(8)), r.Unsigned())
	}
	// The certificate is renewed with the old key meanwhile: the next one still waits.
	if d, err := r.Renew(identity.Portal, "ann", key(1), Enrolment{Key: key(1), Issued: now}); err != nil || len(d.Removed) != 0 || !r.Granted("ann", key(7)) {
		t.Errorf("renewed with the old key: %+v, %v", d, err)
	}
	if d, err := r.Renew(identity.Portal, "ann", key(1), Enrolment{Key: key(7), Issued: now}); err != nil || len(d.Removed)+len(d.Added) != 0 {
		t.Errorf("renewed with the next: %+v, %v", d, err)
	}
	if d, err := r.Settle(identity.Portal, "ann", key(7)); err != nil || len(d.Removed) != 1 || r.Grants() != 1 {
		t.Errorf("settled: %+v, %v", d, err)
	}
}

// TestWhatHasEndedByItselfIsTold: once, whoever notices it first.
func TestWhatHasEndedByItselfIsTold(t *testing.T) {
	at := now
	store, err := store.Open(create(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r, err := Open("example.org", store, signer("policy"), func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, requested)
	o, _, err := r.Allow("shell", "", "cy", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	at = o.Until.Add(-time.Second)
	if d, err := r.Lapse(); err != nil || len(d.Lapsed) > 0 {
		t.Errorf("a second before its end: %+v, %v", d, err)
	}
	at = o.Until
	if d, err := r.Lapse(); err != nil || !slices.Equal(d.Lapsed, []policy.Opening{o}) || len(d.Removed) != 1 {
		t.Errorf("at its end: %+v, %v", d, err)
	}
	if d, err := r.Lapse(); err != nil || len(d.Lapsed) > 0 {
		t.Errorf("again: %+v, %v", d, err)
	}
	if _, _, err := r.Allow("shell", "", "cy", time.Hour); err != nil {
		t.Fatal(err)
	}
	at = at.Add(time.Hour)
	if d := enrol(t, r, 3, "bo", false); len(d.Lapsed) != 1 {
		t.Errorf("noticed by another change: %+v", d)
	}
}
