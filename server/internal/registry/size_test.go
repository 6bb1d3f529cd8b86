package registry

import (
	"fmt"
	"testing"

	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// BenchmarkApply applies the largest policy there may be: check, sign and store
// policy.MaxGrants permissions.
func BenchmarkApply(b *testing.B) {
	const portals = 200
	for b.Loop() {
		b.StopTimer()
		s, err := store.Create(b.TempDir() + "/state.db")
		if err != nil {
			b.Fatal(err)
		}
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
		for i := range policy.MaxGrants {
			entry := i % portals
			forwards = append(forwards, fmt.Sprintf("f%d p%d tcp://127.0.0.1:%d p%d tcp://10.0.0.1:80", i, entry, 1+i/portals, (entry+1)%portals))
		}
		source := text(forwards...)
		b.StartTimer()
		if d, err := apply(r, source); err != nil || len(d.Added) != policy.MaxGrants {
			b.Fatalf("%d grants, %v", len(d.Added), err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
