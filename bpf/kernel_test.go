//go:build linux

package bpf

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// allModes are those that one can ask for.
var allModes = []string{ModeXDP, ModeTC, ModeGeneric}

func TestForwardsInEveryMode(t *testing.T) {
	for _, mode := range allModes {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s v6=%v", mode, v6), func(t *testing.T) {
				w := newWorld(t)
				k := w.open(w.options(mode, ""))
				if got := k.Name(); got != mode {
					t.Errorf("the plane is %q", got)
				}
				p := pairOf(UDP, v6, 0)
				if err := k.Add(p, Terms{Lifetime: time.Hour}); err != nil {
					t.Fatal(err)
				}
				w.meet(v6)
				ends := w.ends(p)
				const count = 1000
				if lost := stream(t, ends[0], ends[1], count, nil); lost != 0 {
					t.Errorf("%d datagrams to host 1 were lost; drops %v", lost, k.Drops())
				}
				if lost := stream(t, ends[1], ends[0], 2*count, nil); lost != 0 {
					t.Errorf("%d datagrams to host 0 were lost; drops %v", lost, k.Drops())
				}
				got, err := k.Remove(p)
				want := Counters{FromA: Traffic{count, count * payload}, FromB: Traffic{2 * count, 2 * count * payload}}
				if got != want || err != nil {
					t.Errorf("counted %v, %v; want %v", got, err, want)
				}
				silent(t, ends[0], ends[1])
			})
		}
	}
}

func TestAutoTakesTCWhereThereIsNoHardware(t *testing.T) {
	w := newWorld(t)
	k := w.open(w.options(ModeAuto, ""))
	if got, want := k.Interfaces(), []Interface{{"a", ModeTC, ""}, {"b", ModeTC, ""}}; !slices.Equal(got, want) {
		t.Errorf("interfaces %v, want %v", got, want)
	}
	hardware := k.modesFor(device{name: "eth0", ethernet: true})
	if want := []string{ModeXDP, ModeTC, ModeGeneric}; !slices.Equal(hardware, want) {
		t.Errorf("modes for hardware are %v, want %v", hardware, want)
	}
}
