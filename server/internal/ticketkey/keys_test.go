package ticketkey

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/store"
)

var start = time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)

func open(t *testing.T) store.Store {
	t.Helper()
	s, err := store.Create(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func keys(t *testing.T, s store.Store, now time.Time) *Keys {
	t.Helper()
	k, err := Open(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTicketsEndTogetherAndOutlastTheStamps(t *testing.T) {
	for now := start; now.Before(start.Add(3 * 24 * time.Hour)); now = now.Add(7 * time.Minute) {
		left := Ends(now).Sub(now)
		if left <= grant.StampLife || left > Life {
			t.Fatalf("at %v: a ticket of %v", now, left)
		}
		if at := Ends(now).Unix() % int64(Grid/time.Second); at != 0 {
			t.Fatalf("at %v: it ends %d s after a line of the grid", now, at)
		}
	}
	if a, b := Ends(start), Ends(start.Add(4*time.Hour)); !a.Equal(b) {
		t.Errorf("four hours apart: %v and %v", a, b)
	}
}

func TestRestartedServerIssuesTheSameTickets(t *testing.T) {
	s := open(t)
	first := keys(t, s, start).Of("relay-1", start)
	second := keys(t, s, start.Add(time.Hour)).Of("relay-1", start.Add(time.Hour))
	if len(first) != 1 || !slices.Equal(first, second) {
		t.Errorf("%d keys, then %d", len(first), len(second))
	}
}

func TestRelaysCannotUseEachOthersKeys(t *testing.T) {
	k := keys(t, open(t), start)
	if k.Of("relay-1", start)[0] == k.Of("relay-2", start)[0] {
		t.Error("two relays have one key")
	}
}

// Whatever ticket is issued in half a year: its key is known to a relay that
// heard from the server up to a Grid before, and until the ticket ends. No key
// makes tickets for longer than Period and a moment, and a relay is never told
// more keys than a message holds.
func TestKeyLivesAsLongAsItsTickets(t *testing.T) {
	s := open(t)
	k := keys(t, s, start)
	var told [][]wire.Secret // the relay, hour by hour
	since := make(map[wire.Secret]time.Time)
	step := Grid / 12
	for i := 0; i < 26*7*24; i++ {
		now := start.Add(time.Duration(i) * step)
		if err := k.Rotate(now); err != nil {
			t.Fatal(err)
		}
		list := k.Of("relay-1", now)
		if m, err := wire.ParseTicketKeys(wire.TicketKeys{Keys: list}.AppendTo(nil)); err != nil || len(m.Keys) != len(list) {
			t.Fatalf("%v: of %d keys %d arrive: %v", now, len(list), len(m.Keys), err)
		}
		told = append(told, list)
		if _, ok := since[list[0]]; !ok {
			since[list[0]] = now
		}
		if age := now.Sub(since[list[0]]); age > Period {
			t.Fatalf("%v: a key makes tickets for %v", now, age)
		}
	}
	if len(since) < 20 {
		t.Errorf("%d keys in half a year", len(since))
	}
	before, after := int(Grid/step)-1, int(Life/step)
	for i := before; i+after < len(told); i++ {
		newest := told[i][0]
		for j := i - before; j <= i+after; j++ {
			if !slices.Contains(told[j], newest) {
				t.Fatalf("the key of %v is not known at %v", start.Add(time.Duration(i)*step), start.Add(time.Duration(j)*step))
			}
		}
	}
	if again := keys(t, s, start); len(again.list) != len(k.list) {
		t.Errorf("%d keys are kept, want %d", len(again.list), len(k.list))
	}
}

func TestClockThatWasWrongForAWhileDoesNotStopTheRotation(t *testing.T) {
	k := keys(t, open(t), start)
	right := k.Of("r", start)[0]
	if err := k.Rotate(start.AddDate(10, 0, 0)); err != nil {
		t.Fatal(err)
	}
	now := start.Add(time.Hour)
	if err := k.Rotate(now); err != nil {
		t.Fatal(err)
	}
	if got := k.Of("r", now)[0]; got != right {
		t.Error("the key changed with the clock")
	}
	late := start.Add(Period + Grid)
	for now := start; !now.After(late); now = now.Add(time.Hour) {
		if err := k.Rotate(now); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.Of("r", late)[0]; got == right {
		t.Error("the key is not changed any more")
	}
}

func TestBrokenKeysAreRefused(t *testing.T) {
	for _, value := range []string{"", "null", "[]", `[{"key":"AAAA","from":"2026-11-22T19:00:00Z"}]`, "{}"} {
		s := open(t)
		if _, err := s.Commit(store.Change{Put: map[string][]byte{storeKey: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s, start); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
}
