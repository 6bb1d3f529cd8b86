package registry

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// TestFullListOfRevocationsForgetsNothing: of one name the last revocation takes the
// place of the others, and where no more fit none is forgotten: the next is refused.
func TestFullListOfRevocationsForgetsNothing(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	name := func(at time.Time) Revoked { return Revoked{Role: identity.Portal, Name: "bo", Before: at} }
	for n := range 3 {
		if _, _, err := r.Revoke(name(now.Add(time.Duration(n) * time.Second))); err != nil {
			t.Fatal(err)
		}
	}
	if list := r.Revocations(0); len(list) != 1 || list[0].Epoch != 3 {
		t.Fatalf("of one name there are %+v", list)
	}
	if _, _, err := r.Revoke(name(now)); err != nil { // an older moment than is revoked already
		t.Fatal(err)
	}
	if begin := r.Begin(identity.Portal, "bo"); !begin.Equal(now.Add(2 * time.Second)) {
		t.Errorf("a certificate of bo may begin at %v", begin)
	}
	many := make([]Revoked, identity.MaxRevocations-2)
	for i := range many {
		many[i].Key[0] = 2
		binary.BigEndian.PutUint64(many[i].Key[8:], uint64(i))
	}
	if _, _, err := r.Revoke(many...); err != nil {
		t.Fatal(err)
	}
	epoch := r.Epoch()
	if _, _, err := r.Revoke(Revoked{Key: key(1)}); !errors.Is(err, ErrFull) {
		t.Fatalf("one more: %v", err)
	}
	if _, ok := r.Portal("ann"); !ok || r.Epoch() != epoch {
		t.Error("what was refused has changed something")
	}
	if _, _, err := r.Revoke(name(now.Add(time.Minute))); err != nil {
		t.Errorf("a name that is revoked already: %v", err)
	}
	// And so it is after a restart: all of them hold.
	s.Close()
	r, s = open(t, file)
	defer s.Close()
	if len(r.Revocations(0)) != identity.MaxRevocations-1 || r.Epoch() != epoch+1 || !r.IsRevoked(many[0].Key) || !r.IsRevoked(many[len(many)-1].Key) {
		t.Errorf("after a restart: %d, up to epoch %d", len(r.Revocations(0)), r.Epoch())
	}
	// Whoever was away for all of it hears the same as who was there.
	var away identity.Revocations
	for _, v := range r.Revocations(2) {
		if err := away.Add(v.Revocation()); err != nil {
			t.Fatal(err)
		}
	}
	if away.Epoch() != r.Epoch() {
		t.Errorf("who was away is at epoch %d", away.Epoch())
	}
}
