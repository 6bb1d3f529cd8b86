package hub

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// F32: two machines with one certificate change places at most every 10 s, and the
// operator is told of both.
func TestMachinesThatFightForAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann")
		begun := time.Now()
		switches := 0
		for range 120 { // two minutes, one attempt a second
			if _, reason := w.enter("ann"); reason == wire.ReasonNone {
				switches++
			} else if reason != wire.ReasonBusy {
				t.Errorf("refused with %v", reason)
			}
			w.run(time.Second)
		}
		if switches < 10 || switches > 14 {
			t.Errorf("%d changes in 120 s, want one in 10 s", switches)
		}
		list := w.hub.Contests()
		if len(list) != 1 || list[0].Name != "ann" || list[0].Since.Sub(begun) > 15*time.Second || time.Since(list[0].Last) > 5*time.Second {
			t.Fatalf("the operator is shown %+v", list)
		}
		want := netip.MustParseAddrPort("192.0.2.1:1")
		if k := w.hub.Portals()[0].Contest; k == nil || k.First != want || k.Second != want {
			t.Errorf("the portal is shown with %+v", k)
		}
		w.run(contestTime + time.Second)
		if list := w.hub.Contests(); len(list) != 0 {
			t.Errorf("an hour later the operator is shown %+v", list)
		}
	})
}

// TestMachineThatComesAnewFightsNobody: its network changes again and again, and what it
// leaves behind never answers.
func TestMachineThatComesAnewFightsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann")
		for range 30 {
			c, reason := w.enter("ann")
			if reason == wire.ReasonBusy {
				// What is asked for a sign of life and gives none is gone.
				w.run(5 * time.Second)
				w.hub.leavePortal(w.hub.portals["ann"])
				continue
			}
			w.run(7 * time.Second)
			if !c.asked.IsZero() {
				t.Error("asked though nobody came")
			}
		}
		if list := w.hub.Contests(); len(list) != 0 {
			t.Errorf("the operator is shown %+v", list)
		}
	})
}
