package ticket

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

func TestTicketsBelongToOneKeyPairAndEnd(t *testing.T) {
	key, ends := wire.NewSecret(), time.Unix(1_800_000_000, 0)
	id := Session(key, "bo", "ann", ends)
	if got, ok := Ends(id); !ok || !got.Equal(ends) {
		t.Errorf("ends %v, %v; want %v", got, ok, ends)
	}
	if id != Session(key, "ann", "bo", ends) {
		t.Error("the order of the names makes another session")
	}
	others := map[string]wire.SessionID{
		"key":  Session(wire.NewSecret(), "ann", "bo", ends),
		"pair": Session(key, "ann", "cy", ends),
		"cut":  Session(key, "an", "nbo", ends),
		"end":  Session(key, "ann", "bo", ends.Add(time.Second)),
	}
	for what, other := range others {
		if other == id {
			t.Errorf("another %s makes the same session", what)
		}
	}
	if Secret(key, id, 0) == Secret(key, id, 1) || Secret(key, id, 0) == Secret(wire.NewSecret(), id, 0) ||
		Secret(key, id, 0) == Secret(key, others["pair"], 0) {
		t.Error("two legs have one secret")
	}
	if _, ok := Ends(wire.SessionID{1}); ok {
		t.Error("any session is a ticket's")
	}
}
