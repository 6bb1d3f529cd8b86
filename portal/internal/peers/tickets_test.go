package peers

import (
	"fmt"
	"testing"
)

func TestEveryPeerHasItsTurn(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 1000} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("p", i))
		}
		had := make(map[string]int)
		rounds := (n + maxWaits - 1) / maxWaits
		for i := range rounds {
			list := turn(names, i, maxWaits)
			if len(list) != min(n, maxWaits) {
				t.Fatalf("%d of %d peers at once, want %d", len(list), n, min(n, maxWaits))
			}
			for _, name := range list {
				had[name]++
			}
		}
		if len(had) != n {
			t.Errorf("%d of %d peers had a turn in %d rounds", len(had), n, rounds)
		}
	}
}
