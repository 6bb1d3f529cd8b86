package keeper

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// TestFullSetOfRevocationsForgetsNothing: of more revocations than can be held the first
// ones stay, on disk too, a newer one of a name that is held is taken, and it is said that
// others are not.
func TestFullSetOfRevocationsForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		named := wire.Revocation{Revocation: identity.Revocation{Epoch: 1, Role: identity.Portal, Name: "bo", Before: r.Credentials().Leaf().NotBefore}}
		r.handle(named)
		key := func(n uint64) (k identity.KeyHash) {
			k[0] = 1
			binary.BigEndian.PutUint64(k[8:], n)
			return k
		}
		for n := uint64(2); n <= identity.MaxRevocations; n++ {
			if taken, err := r.Handle(wire.Revocation{Revocation: identity.Revocation{Epoch: n, Key: key(n)}}); !taken || err != nil {
				t.Fatal(n, err)
			}
		}
		if s := r.Status(); s.Missing != 0 || s.Revocations != identity.MaxRevocations {
			t.Fatalf("the last that has room: %+v", s)
		}
		for n := range uint64(3) {
			r.handle(wire.Revocation{Revocation: identity.Revocation{Epoch: identity.MaxRevocations + 1 + n, Key: key(0)}})
		}
		named.Epoch, named.Before = identity.MaxRevocations+4, named.Before.Add(day)
		r.handle(named)
		s := r.Status()
		if s.Missing != 3 || len(s.Lines()) != 1 || !strings.Contains(s.Lines()[0], "no room") {
			t.Errorf("status says %+v", s)
		}
		if n := strings.Count(r.logged(), "revocation of the server not taken"); n != 1 {
			t.Errorf("said %d times", n)
		}
		check := func() {
			t.Helper()
			list := r.Credentials().Revocations().After(0)
			if len(list) != identity.MaxRevocations || list[0].Key != key(2) || !list[len(list)-1].Before.Equal(named.Before) {
				t.Errorf("%d are held, from %v to %v", len(list), list[0], list[len(list)-1])
			}
		}
		check()
		r.stop()
		r.start()
		check()
	})
}
