package leg

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

func TestTicketsBelongToOneKeyPairAndEnd(t *testing.T) {
	key, ends := wire.NewSecret(), time.Unix(1_800_000_000, 0)
	id := TicketSession(key, "bo", "ann", ends)
	if got, ok := TicketEnds(id); !ok || !got.Equal(ends) {
		t.Errorf("ends %v, %v; want %v", got, ok, ends)
	}
	if id != TicketSession(key, "ann", "bo", ends) {
		t.Error("the order of the names makes another session")
	}
	others := map[string]wire.SessionID{
		"key":  TicketSession(wire.NewSecret(), "ann", "bo", ends),
		"pair": TicketSession(key, "ann", "cy", ends),
		"cut":  TicketSession(key, "an", "nbo", ends),
		"end":  TicketSession(key, "ann", "bo", ends.Add(time.Second)),
	}
	for what, other := range others {
		if other == id {
			t.Errorf("another %s makes the same session", what)
		}
	}
	if TicketSecret(key, id, 0) == TicketSecret(key, id, 1) || TicketSecret(key, id, 0) == TicketSecret(wire.NewSecret(), id, 0) ||
		TicketSecret(key, id, 0) == TicketSecret(key, others["pair"], 0) {
		t.Error("two legs have one secret")
	}
	if _, ok := TicketEnds(wire.SessionID{1}); ok {
		t.Error("any session is a ticket's")
	}
}
