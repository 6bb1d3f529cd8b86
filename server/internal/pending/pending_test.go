package pending

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/store"
)

// TestRequestsAreBounded: a peer that asks with ever new keys has a few requests, and one
// that is repeated no more is forgotten.
func TestRequestsAreBounded(t *testing.T) {
	s, err := store.Create(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	q := New("example.org", s, func() []*x509.Certificate { return nil }, func() time.Time { return now })
	ask := func(name string) ca.Order {
		t.Helper()
		key, err := ca.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := identity.NewRequest(identity.ID{Domain: "example.org", Role: identity.Portal, Name: name}, key)
		if err != nil {
			t.Fatal(err)
		}
		o := ca.Order{Role: identity.Portal, Name: name, Public: key.Public(), Request: csr}
		if _, err := q.Issue(t.Context(), o); !errors.Is(err, ErrWaits) {
			t.Fatal(err)
		}
		return o
	}
	waiting := func(want int) {
		t.Helper()
		if list, all, err := q.Waiting(); err != nil || len(list) != want || all != want {
			t.Errorf("%d of %d wait, %v; want %d", len(list), all, err, want)
		}
	}
	bo := ask("bo")
	ask("ann.x") // whose name begins as another's
	for range 20 {
		now = now.Add(time.Minute)
		ask("ann")
	}
	waiting(2 + maxKeys)
	list, _, err := q.Waiting()
	if err != nil || list[0].Name != "ann.x" && list[0].Name != "bo" {
		t.Errorf("the first is %+v, %v", list[0], err)
	}
	// Repeated, it keeps its place; others are forgotten.
	since := list[0].Since
	for range 31 {
		now = now.Add(24 * time.Hour)
		if _, err := q.Issue(t.Context(), bo); !errors.Is(err, ErrWaits) {
			t.Fatal(err)
		}
	}
	waiting(1)
	if list, _, _ := q.Waiting(); list[0].Name != "bo" || !list[0].Since.Equal(since) {
		t.Errorf("bo waits since %v, want %v", list[0].Since, since)
	}
	ask("ann") // takes out the old ones of this name
	if entries, err := s.List(nameOf(identity.Portal, "ann")); err != nil || len(entries) != 1 {
		t.Errorf("%d entries of ann, %v", len(entries), err)
	}
	if err := q.Void("", "", identity.HashPublic(bo.Public)); err != nil {
		t.Fatal(err)
	}
	waiting(1)
}
