package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// F34: a server that is killed while it takes a new policy starts with the old one or the new one, whole, never with a
// mixture or with none, and within 2 s.
func TestServerKilledInPolicyApplyHasOneOfTheTwo(t *testing.T) {
	rounds := 8
	if *full {
		rounds = 200
	}
	w := newNetwork(t)
	for _, name := range []string{"laptop", "factory"} {
		w.identity("portal", name)
	}
	// Policies that differ in every forward, and that are large enough to take a moment.
	policy := func(version int) string {
		var forwards []forward
		for i := range 200 {
			forwards = append(forwards, forward{fmt.Sprintf("v%d-%d", version, i), fmt.Sprintf("tcp://127.0.0.1:%d", 10_000+i), w.service("tcp", uint16(1000+version))})
		}
		return w.policy(forwards...)
	}
	start := time.Now()
	w.Apply(policy(0))
	typical := time.Since(start)
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d; an apply takes %v", seed, typical)

	old, applied := 0, 0
	for round := 1; round <= rounds; round++ {
		file := w.Server.Host().WriteFile("next.toml", "domain = \"example.org\"\n"+policy(round))
		apply := w.Server.Command("policy", "apply", file)
		if err := apply.Start(); err != nil {
			t.Fatal(err)
		}
		await.Passing(t, time.Duration(dice.Int64N(int64(typical))))
		w.Server.Kill()
		acknowledged := apply.End() == nil
		begun := time.Now()
		w.Server.Start()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("round %d: the server took %v to start", round, took)
		}
		show := w.Server.Run("policy", "show")
		had, has := strings.Count(show, fmt.Sprintf("\nv%d-", old)), strings.Count(show, fmt.Sprintf("\nv%d-", round))
		switch {
		case had == 0 && has == 200:
			old, applied = round, applied+1
		case had != 200 || has != 0:
			t.Fatalf("round %d: the policy has %d forwards of the old and %d of the new:\n%s", round, had, has, show)
		case acknowledged:
			t.Fatalf("round %d: the new policy was acknowledged, and is lost", round)
		}
	}
	t.Logf("%d of %d were in force after the kill", applied, rounds)
}
