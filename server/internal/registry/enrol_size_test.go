package registry

import (
	"fmt"
	"testing"

	"github.com/netport/netport/server/internal/store"
)

// BenchmarkEnrol enrols one more portal where 500 have 10,000 forwards.
func BenchmarkEnrol(b *testing.B) {
	const portals = 500
	s, err := store.Create(b.TempDir() + "/state.db")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r, err := Open("example.org", s, signer("policy"), clock)
	if err != nil {
		b.Fatal(err)
	}
	for i := range portals {
		if _, err := r.PutPortal(Portal{Name: fmt.Sprintf("p%d", i), Enrolment: Enrolment{Key: key(byte(i))}}, false); err != nil {
			b.Fatal(err)
		}
	}
	var forwards []string
	for i := range 10_000 {
		entry := i % portals
		forwards = append(forwards, fmt.Sprintf("f%d p%d tcp://127.0.0.1:%d p%d tcp://10.0.0.1:80", i, entry, 1+i/portals, (entry+1)%portals))
	}
	if d, err := apply(r, text(forwards...)); err != nil || len(d.Added) != 10_000 {
		b.Fatalf("%d grants, %v", len(d.Added), err)
	}
	n := 0
	for b.Loop() {
		n++
		if _, err := r.PutPortal(Portal{Name: fmt.Sprintf("p%d", n%portals), Enrolment: Enrolment{Key: key(byte(100 + n))}}, true); err != nil {
			b.Fatal(err)
		}
	}
}
