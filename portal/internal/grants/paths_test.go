package grants

import (
	"testing"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// What one grant says of the paths between two portals binds all between these two, in
// both directions, as long as it holds, and nobody else.
func TestOneGrantsWordOnPathsBindsAllBetweenTheTwo(t *testing.T) {
	w := newWorld(t, "factory")
	want := func(peer string, paths grant.Direct) {
		t.Helper()
		if got := w.set.Paths(w.now, peer); got != paths {
			t.Errorf("to %s: %v, want %v", peer, got, paths)
		}
	}
	any := permission(1, "any", "laptop", "factory")
	back := permission(1, "back", "factory", "laptop")
	back.Direct = grant.DirectOnly
	other := permission(1, "other", "phone", "factory")
	other.Direct = grant.DirectNever
	back.End = w.now.Add(grant.StampLife / 2)
	want("laptop", grant.DirectAny)
	w.put(sign(any, w.now))
	want("laptop", grant.DirectAny)
	w.put(sign(back, w.now))
	w.put(sign(other, w.now))
	want("laptop", grant.DirectOnly)
	want("phone", grant.DirectNever)
	want("stranger", grant.DirectAny)
	w.now = back.End
	want("laptop", grant.DirectAny)
	w.set.Remove(w.now, sign(other, w.now).ID(), wire.ReasonGrantRemoved)

	want("phone", grant.DirectAny)
}
