package registry

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// pairs returns which keys may meet, "ab" for the key a of the entry and b of the exit.
func pairs(r *Registry, portal string) map[[2]identity.KeyHash]bool {
	found := make(map[[2]identity.KeyHash]bool)
	for _, g := range r.Of(portal, now) {
		found[[2]identity.KeyHash{g.Entry.Key, g.Exit.Key}] = true
	}
	return found
}

func TestKeyIsChangedWithoutAGap(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, text(web))
	next := Enrolment{Key: key(3), Issued: now, NotAfter: now.Add(time.Hour)}
	d, err := r.Renew(identity.Portal, "ann", key(1), next)
	if err != nil || len(d.Removed) > 0 || len(d.Added) != 1 {
		t.Fatalf("renewed with a new key: %+v, %v", d, err)
	}
	want := map[[2]identity.KeyHash]bool{{key(1), key(2)}: true, {key(3), key(2)}: true}
	if got := pairs(r, "plant"); len(got) != 2 || !got[[2]identity.KeyHash{key(3), key(2)}] {
		t.Errorf("permissions for %v, want %v", got, want)
	}
	// Both at once: every pair of their keys may meet.
	if _, err := r.Renew(identity.Portal, "plant", key(2), Enrolment{Key: key(4), Issued: now}); err != nil {
		t.Fatal(err)
	}
	if got := pairs(r, "ann"); len(got) != 4 {
		t.Errorf("two portals that change their keys have permissions for %v", got)
	}
	s.Close()
	r, _ = open(t, file)
	if e, _ := r.Enrolled(identity.Portal, "ann"); !e.Holds(key(1)) || !e.Holds(key(3)) || e.Holds(identity.KeyHash{}) || e.Holds(key(4)) {
		t.Errorf("read back: %+v", e)
	}
	if d, err = r.Settle(identity.Portal, "ann", key(3)); err != nil || len(d.Removed) != 2 || len(d.Added) > 0 {
		t.Fatalf("settled: %+v, %v", d, err)
	}
	if e, _ := r.Enrolled(identity.Portal, "ann"); e.Holds(key(1)) || e.Key != key(3) || !e.Next.IsZero() {
		t.Errorf("settled: %+v", e)
	}
	// Who still has the old key has lost the new one: then that goes.
	if _, err := r.Settle(identity.Portal, "plant", key(2)); err != nil {
		t.Fatal(err)
	}
	if got := pairs(r, "ann"); len(got) != 1 || !got[[2]identity.KeyHash{key(3), key(2)}] {
		t.Errorf("settled: permissions for %v", got)
	}
	if d, err := r.Settle(identity.Portal, "ann", key(3)); err != nil || len(d.Removed)+len(d.Added) > 0 {
		t.Errorf("settled again: %+v, %v", d, err)
	}
}

func TestWhoDoesNotHoldTheKeyRenewsNothing(t *testing.T) {
	r, _ := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	for what, try := range map[string]func() (Diff, error){
		"another's key": func() (Diff, error) { return r.Renew(identity.Portal, "ann", key(2), Enrolment{Key: key(3)}) },
		"nobody":        func() (Diff, error) { return r.Renew(identity.Portal, "cy", key(1), Enrolment{Key: key(3)}) },
		"another role":  func() (Diff, error) { return r.Renew(identity.Relay, "ann", key(1), Enrolment{Key: key(3)}) },
		"no key": func() (Diff, error) {
			return r.Renew(identity.Portal, "ann", identity.KeyHash{}, Enrolment{Key: key(3)})
		},
		"settled: wrong": func() (Diff, error) { return r.Settle(identity.Portal, "ann", key(2)) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if e, _ := r.Enrolled(identity.Portal, "ann"); e.Key != key(1) || !e.Next.IsZero() {
		t.Errorf("ann is enrolled as %+v", e)
	}
	if d, err := r.Renew(identity.Portal, "ann", key(1), Enrolment{Key: key(1), NotAfter: now.Add(time.Hour)}); err != nil || len(d.Added)+len(d.Removed) > 0 {
		t.Errorf("renewed with its own key: %+v, %v", d, err)
	}
	if e, _ := r.Enrolled(identity.Portal, "ann"); !e.NotAfter.Equal(now.Add(time.Hour)) || !e.Next.IsZero() {
		t.Errorf("renewed: %+v", e)
	}
}

func TestRevokedNameIsGoneAndMayComeAnew(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	if err := r.PutRelay(Relay{Name: "relay-1", Enrolment: Enrolment{Key: key(7)}, Addresses: []string{"192.0.2.7"}}, false); err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, text(web))
	list, d, err := r.Revoke(Revoked{Role: identity.Portal, Name: "ann", Before: now}, Revoked{Key: key(1)})
	if err != nil || len(list) != 2 || list[1].Epoch != 2 || len(d.Removed) != 1 {
		t.Fatalf("revoked: %+v, %+v, %v", list, d, err)
	}
	if _, ok := r.Portal("ann"); ok || r.Grants() != 0 || r.Joined("ann", "plant", now) {
		t.Error("a revoked portal is enrolled, or has grants")
	}
	if _, _, err := r.Revoke(Revoked{Key: key(7)}); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Relay("relay-1"); ok {
		t.Error("a relay whose key was revoked is enrolled")
	}
	s.Close()
	r, _ = open(t, file)
	if got := r.Revocations(0); r.Epoch() != 3 || len(got) != 3 || got[0].Name != "ann" || got[2].Key != key(7) {
		t.Errorf("read back: %+v", got)
	}
	if got := r.Revocations(2); len(got) != 1 || len(r.Revocations(3)) > 0 || len(r.Revocations(99)) > 0 {
		t.Errorf("after epoch 2: %+v", got)
	}
	if !r.IsRevoked(key(1)) || r.IsRevoked(key(2)) || !r.Begin(identity.Portal, "ann").Equal(now) || !r.Begin(identity.Relay, "ann").IsZero() {
		t.Error("what was revoked is not known any more")
	}
	enrol(t, r, 3, "ann", false)
	if r.Grants() != 1 {
		t.Errorf("%d grants for the name that came anew, want 1", r.Grants())
	}
	for what, v := range map[string]Revoked{"nothing": {}, "two things": {Key: key(1), Role: identity.Portal, Name: "plant", Before: now}, "no time": {Role: identity.Portal, Name: "plant"}} {
		if _, _, err := r.Revoke(v); err == nil {
			t.Errorf("%s: revoked", what)
		}
	}
	if r.Epoch() != 3 {
		t.Errorf("a revocation that was refused has made the epoch %d", r.Epoch())
	}
}

func TestRevocationThatIsNotOnDiskIsNone(t *testing.T) {
	r, s := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	r.store = full{s}
	if _, _, err := r.Revoke(Revoked{Key: key(1)}); err == nil {
		t.Error("revoked without a word on disk")
	}
	if _, ok := r.Portal("ann"); !ok || r.Epoch() != 0 {
		t.Error("what is not on disk is in force")
	}
}

// A state that was restored from an old one does not give away epochs that others hold.
func TestEpochsGoOnAboveThoseThatWereLost(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	r.Told(7)
	r.Told(3)
	r.Told(maxLost + 1)
	r.Told(1 << 63)
	if r.Epoch() != 0 {
		t.Errorf("epoch %d without a revocation", r.Epoch())
	}
	if list, _, err := r.Revoke(Revoked{Key: key(1)}); err != nil || list[0].Epoch != 8 {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, _, err := r.Revoke(Revoked{Key: key(2)}); err != nil || list[0].Epoch != 9 {
		t.Fatalf("%+v, %v", list, err)
	}
	s.Close()
	r, _ = open(t, file)
	for after, want := range map[uint64]int{0: 2, 7: 2, 8: 1, 9: 0, 1 << 40: 0} {
		if got := r.Revocations(after); len(got) != want {
			t.Errorf("after epoch %d: %+v", after, got)
		}
	}
	if r.Epoch() != 9 {
		t.Errorf("epoch %d", r.Epoch())
	}
}
