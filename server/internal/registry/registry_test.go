package registry

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// signer is a policy key; tests need no secret one.
func signer(seed string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(sum[:])
}

func open(t *testing.T, file string) (*Registry, store.Store) {
	t.Helper()
	s, err := store.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r, err := Open("example.org", s, signer("policy"), clock)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

func create(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := store.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return file
}

func key(n byte) identity.KeyHash { return identity.KeyHash{n} }

func enrol(t *testing.T, r *Registry, n byte, name string, replace bool) Diff {
	t.Helper()
	d, err := r.PutPortal(Portal{Name: name, Enrolment: Enrolment{Key: key(n), Issued: now, NotAfter: now}}, replace)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func text(forwards ...string) string {
	var s strings.Builder
	s.WriteString("domain = \"example.org\"\n")
	for _, f := range forwards {
		part := strings.Fields(f)
		fmt.Fprintf(&s, "[[forward]]\nname = %q\nfrom = \"%s %s\"\nto = \"%s %s\"\n", part[0], part[1], part[2], part[3], part[4])
	}
	return s.String()
}

func apply(r *Registry, source string) (Diff, error) {
	p, err := policy.Parse("policy.toml", []byte(source), now)
	if err != nil {
		return Diff{}, err
	}
	return r.Apply(p, "policy.toml", []byte(source), false)
}

func mustApply(t *testing.T, r *Registry, source string) Diff {
	t.Helper()
	d, err := apply(r, source)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	web = "web ann tcp://127.0.0.1:80 plant tcp://10.0.0.5:80"
	ssh = "ssh ann tcp://127.0.0.1:22 plant tcp://10.0.0.5:22"
)

// ids returns the ids of a portal's grants by forward.
func ids(r *Registry, portal string) map[string]wire.GrantID {
	m := make(map[string]wire.GrantID)
	for _, g := range r.Of(portal, now) {
		m[g.Forward] = g.ID()
	}
	return m
}

func TestUnchangedGrantsKeepTheirIDs(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	if d := mustApply(t, r, text(web)); d.Version != 1 || len(d.Added) != 1 {
		t.Fatalf("%+v", d)
	}
	first := ids(r, "ann")["web"]
	d := mustApply(t, r, "# a comment\n"+text(web, ssh))
	if d.Version != 2 || len(d.Added) != 1 || len(d.Removed) != 0 || d.Kept != 1 || d.Added[0].Version != 2 {
		t.Errorf("%+v", d)
	}
	if got := ids(r, "ann")["web"]; got != first {
		t.Errorf("web is now %v, was %v", got, first)
	}
	if d := mustApply(t, r, "# a comment\n"+text(web, ssh)); d.Version != 2 || len(d.Added)+len(d.Removed) != 0 {
		t.Errorf("the same again: %+v", d)
	}
	want := ids(r, "plant")
	if !r.Joined("plant", "ann", now) || r.Joined("ann", "bo", now) {
		t.Error("the pairs are wrong")
	}
	s.Close()
	again, _ := open(t, file)
	if d := cmp.Diff(want, ids(again, "plant")); d != "" {
		t.Errorf("after a restart (-want +got):\n%s", d)
	}
	if a := again.Applied(); a.Version != 2 || a.File != "policy.toml" {
		t.Errorf("%+v", a)
	}
	for _, g := range again.Of("ann", now) {
		stamped := g.Stamp(signer("stamp"), now)
		keys := grant.Keys{Policy: []ed25519.PublicKey{signer("policy").Public().(ed25519.PublicKey)}, Stamp: []ed25519.PublicKey{signer("stamp").Public().(ed25519.PublicKey)}}
		if reason := stamped.Verify(keys); reason != wire.ReasonNone {
			t.Errorf("%s: %v", g.Forward, reason)
		}
	}
}

func TestNewKeySignsTheGrantsOfItsPortalAnew(t *testing.T) {
	r, _ := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	enrol(t, r, 3, "bo", false)
	mustApply(t, r, text(web, "bo bo tcp://127.0.0.1:80 plant tcp://10.0.0.5:80"))
	before := ids(r, "plant")
	if _, err := r.PutPortal(Portal{Name: "ann", Enrolment: Enrolment{Key: key(9)}}, false); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("a second key for a name: %v", err)
	}
	d := enrol(t, r, 9, "ann", true)
	if len(d.Removed) != 1 || len(d.Added) != 1 || d.Kept != 1 || d.Added[0].Entry.Key != key(9) || d.Version != 2 {
		t.Errorf("%+v", d)
	}
	after := ids(r, "plant")
	if after["bo"] != before["bo"] || after["web"] == before["web"] {
		t.Errorf("before %v, after %v", before, after)
	}
	if p, ok := r.Portal("ann"); !ok || p.Key != key(9) {
		t.Errorf("%+v", p)
	}
	// A portal that no forward names changes no version.
	if d := enrol(t, r, 7, "cy", false); d.Version != 2 || len(d.Added) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestGrantsEndByThemselves(t *testing.T) {
	r, _ := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, text(ssh, web)+"until = 2026-11-22T13:00:00Z\n")
	end := now.Add(time.Hour)
	if n := len(r.Of("ann", end.Add(-time.Second))); n != 2 {
		t.Errorf("%d grants before the end, want 2", n)
	}
	if list := r.Of("ann", end); len(list) != 1 || list[0].Forward != "ssh" {
		t.Errorf("after the end: %+v", list)
	}
	if list := r.EndedBetween(now, end); len(list) != 1 || list[0].Forward != "web" {
		t.Errorf("ended: %+v", list)
	}
	if list := r.EndedBetween(end, end.Add(time.Hour)); len(list) != 0 {
		t.Errorf("ended twice: %+v", list)
	}
}

func TestStateOfAnotherPolicyKeyIsRefused(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	mustApply(t, r, text())
	s.Close()
	s, err := store.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open("example.org", s, signer("other"), clock); err == nil || !strings.Contains(err.Error(), "put the old policy key back") {
		t.Errorf("%v", err)
	}
}

// full is a store that cannot write.
type full struct{ store.Store }

var errFull = errors.New("no space left on device")

func (full) Commit(store.Change) (uint64, error) { return 0, errFull }

// F33: a change that is not on disk did not happen.
func TestFullDiskRefusesTheChange(t *testing.T) {
	r, s := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, text(web))
	before := ids(r, "ann")
	r.store = full{s}
	if _, err := apply(r, text(ssh)); !errors.Is(err, errFull) {
		t.Errorf("apply: %v", err)
	}
	if _, err := r.PutPortal(Portal{Name: "ann", Enrolment: Enrolment{Key: key(9)}}, true); !errors.Is(err, errFull) {
		t.Errorf("enrol: %v", err)
	}
	if d := cmp.Diff(before, ids(r, "ann")); d != "" || r.Applied().Version != 1 {
		t.Errorf("version %d, grants (-want +got):\n%s", r.Applied().Version, d)
	}
	if p, _ := r.Portal("ann"); p.Key != key(1) {
		t.Errorf("%+v", p)
	}
	r.store = s
	if d := mustApply(t, r, text(ssh)); d.Version != 2 {
		t.Errorf("after the disk has space: %+v", d)
	}
}

// A change behind our back is noticed, not overwritten.
func TestChangeByAnotherIsAConflict(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	mustApply(t, r, text(web))
	if _, err := s.Commit(store.Change{Put: map[string][]byte{policyKey: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(r, text(ssh)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("%v, want ErrConflict", err)
	}
}

func TestRelayAddresses(t *testing.T) {
	for _, a := range []string{"192.0.2.7", "2001:db8::7", "relay.example.org", "127.0.0.1", "10.0.0.1"} {
		if err := CheckAddress(a); err != nil {
			t.Errorf("%q: %v", a, err)
		}
	}
	for _, a := range []string{"", "0.0.0.0", "::", "224.0.0.1", "::ffff:192.0.2.7", "fe80::1", "fe80::1%eth0", "192.0.2.7:443", "[2001:db8::7]", "127.1", "0x7f.1", "Relay", "relay.", "http://relay", "a b", "a\n"} {
		if CheckAddress(a) == nil {
			t.Errorf("%q was accepted", a)
		}
	}
}

// TestMain lets the test binary be the process that is killed while it applies.
func TestMain(m *testing.M) {
	if file := os.Getenv("NETPORT_APPLIER"); file != "" {
		os.Exit(applier(file))
	}
	os.Exit(m.Run())
}

// source is the policy of an even or odd version: many forwards, of which a few
// are in both.
func source(version uint64) string {
	var forwards []string
	for i := range 40 {
		port := 1000 + i
		if i >= 5 {
			port += int(version%2) * 1000
		}
		forwards = append(forwards, fmt.Sprintf("f%d ann tcp://127.0.0.1:%d plant tcp://10.0.0.5:%d", i, port, port))
	}
	return text(forwards...)
}

func applier(file string) int {
	s, err := store.Open(file)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	r, err := Open("example.org", s, signer("policy"), clock)
	for err == nil {
		var d Diff
		d, err = apply(r, source(r.Applied().Version+1))
		fmt.Println("applied", d.Version)
	}
	fmt.Println("error", err)
	return 1
}

// F34.
func TestPolicyIsOldOrNewAfterSIGKILL(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	s.Close()
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		acknowledged := applyUntilKilled(t, file)
		r, s := open(t, file)
		a := r.Applied()
		if a.Version < acknowledged || a.Version > acknowledged+1 {
			t.Fatalf("round %d: version %d is in force, %d was acknowledged", round, a.Version, acknowledged)
		}
		if a.Source != source(a.Version) {
			t.Fatalf("round %d: version %d has the text of another", round, a.Version)
		}
		p, err := policy.Parse("policy.toml", []byte(a.Source), now)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]bool)
		for _, g := range p.Grants(r.Keys(), nil, now) {
			want[content(g)] = true
		}
		list := r.Of("ann", now)
		for _, g := range list {
			if !want[content(g.Permission)] {
				t.Fatalf("round %d: version %d grants %+v", round, a.Version, g.Permission)
			}
		}
		if len(list) != len(want) {
			t.Fatalf("round %d: %d grants, want %d", round, len(list), len(want))
		}
		s.Close()
	}
}

// applyUntilKilled runs an applier, kills it somewhere in its work and returns
// the last version that it acknowledged.
func applyUntilKilled(t *testing.T, file string) uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NETPORT_APPLIER="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var version uint64
	lines := bufio.NewScanner(out)
	left := 1 + rand.IntN(4)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "applied %d", &version); err != nil {
			t.Fatal(lines.Text())
		}
		if left--; left == 0 {
			for range rand.IntN(3_000_000) { // up to some milliseconds
			}
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	return version
}

// TestPolicyIsReadWhereItWasKeptBefore: its text was in one entry with the rest, and its
// version was not signed.
func TestPolicyIsReadWhereItWasKeptBefore(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, text(web))
	old := r.Applied()
	old.Signature = nil
	value, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(store.Change{Put: map[string][]byte{policyKey: value}, Delete: []string{sourceKey}}); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"at once", "after a change"} {
		s.Close()
		r, s = open(t, file)
		if a := r.Applied(); a.Source != text(web) || r.Grants() != 1 || !a.Complete().SignedBy(r.public) {
			t.Errorf("%s: %d grants of %+v", what, r.Grants(), a)
		}
		enrol(t, r, 3, "ann", true)
	}
}
