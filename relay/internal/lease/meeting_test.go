package lease

import (
	"testing"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// meeting returns the preface of a Meeting leg of an ordered session.
func meeting(m wire.CreateSession, n uint8, counter uint64) leg.Preface {
	return parsed(leg.NewMeeting(m.ID, n, counter).AppendTo(nil, m.Legs[n].Secret))
}

func TestMeetingIsNeverUsedUpAndNeverReplayed(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	want := func(what string, table *Table, p leg.Preface, want drop.Reason) {
		t.Helper()
		if why := table.Prove(start, p, home, s.Port); why != want {
			t.Errorf("%s: %v, want %v", what, why, want)
		}
	}
	first, second := meeting(m, 0, 5), meeting(m, 0, 9)
	want("a leg", table, first, drop.None)
	want("the same bytes", table, first, drop.Replayed)
	want("another one with that counter", table, meeting(m, 0, 5), drop.Replayed)
	want("the other leg, whose counter is its own", table, meeting(m, 1, 2), drop.None)
	for i := range 3 {
		if !table.Join(first.ID) {
			t.Errorf("join %d is refused", i)
		}
	}
	want("a later one", table, second, drop.None)
	want("one that was overtaken", table, meeting(m, 0, 8), drop.Replayed)
	wrong := m
	wrong.Legs[0].Secret = m.Legs[1].Secret
	want("the other leg's secret", table, meeting(wrong, 0, 99), drop.WrongMAC)
	want("after a forged one", table, meeting(m, 0, 10), drop.None)
	if got := table.List()[0].Spliced; got != 3 {
		t.Errorf("%d pairs are counted, want 3", got)
	}

	later, _ := mustRestart(t, kernel)
	want("the last one after a restart", later, meeting(m, 0, 10), drop.Replayed)
	want("the other leg's last one after a restart", later, meeting(m, 1, 2), drop.Replayed)
	want("the next one after a restart", later, meeting(m, 0, 11), drop.None)
	want("a number, which no Meeting has used up", later, prove(m, 0, 0), drop.None)
	later.End(m.ID)
	if later.Join(first.ID) {
		t.Error("a Meeting of an ended session is joined")
	}
}
