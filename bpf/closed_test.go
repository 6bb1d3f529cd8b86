//go:build linux

package bpf

import (
	"testing"
	"time"
)

func TestClosedNamesWhatHasEnded(t *testing.T) {
	k := openTable(t, 200)
	ago := func(d time.Duration) func(*relayDirection) {
		return func(r *relayDirection) { r.Seen = coarseNow() - uint64(d) }
	}
	closed := func(bits uint32) func(*relayDirection) { return func(r *relayDirection) { r.Closed |= bits } }
	nothing := func(*relayDirection) {}
	type end struct{ closed, expired bool }
	for n, c := range []struct {
		name string
		a, b func(*relayDirection)
		want end
	}{
		{"in use", nothing, nothing, end{}},
		{"one FIN", closed(closedFIN), nothing, end{}},
		{"both FINs", closed(closedFIN), closed(closedFIN), end{closed: true}},
		{"a RST", nothing, closed(closedRST), end{closed: true}},
		{"idle one way", ago(2 * time.Minute), nothing, end{}},
		{"idle", ago(2 * time.Minute), ago(time.Hour), end{closed: true, expired: true}},
		{"nearly idle", ago(time.Hour), ago(50 * time.Second), end{}},
	} {
		p := pairOf(TCP, false, n)
		if err := k.Add(p, Terms{Lifetime: time.Minute}); err != nil {
			t.Fatal(err)
		}
		k.set(t, TCP, p.A, c.a)
		k.set(t, TCP, p.B, c.b)
		var got end
		for _, e := range k.Closed() {
			if e.Pair == p {
				got = end{true, e.Expired}
				if e.Expired && (e.Idle < 2*time.Minute || e.Idle > 3*time.Minute) {
					t.Errorf("%s: idle for %v", c.name, e.Idle)
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	// Added again, a pair lives on.
	idle := pairOf(TCP, false, 5)
	if err := k.Add(idle, Terms{Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for _, e := range k.Closed() {
		if e.Pair == idle {
			t.Error("a pair that was renewed is closed")
		}
	}
}

func TestExpiredPairForwardsNothing(t *testing.T) {
	w := newWorld(t)
	k := w.open(w.options(ModeTC, ""))
	p := pairOf(UDP, false, 0)
	if err := k.Add(p, Terms{Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	w.meet(false)
	ends := w.ends(p)
	for _, l := range []Leg{p.A, p.B} {
		k.set(t, UDP, l, func(d *relayDirection) { d.Seen -= uint64(61 * time.Second) })
	}
	silent(t, ends[0], ends[1])
	if got := k.Drops()["expired"]; got != 10 {
		t.Errorf("%d packets were dropped as expired, want 10", got)
	}
	if got := k.Closed(); len(got) != 1 || !got[0].Expired || got[0].Pair != p {
		t.Errorf("closed is %v", got)
	}
	if err := k.Add(p, Terms{Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
		t.Errorf("after it was renewed %d datagrams were lost", lost)
	}
}
