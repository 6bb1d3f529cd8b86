package hub

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Outside of its hours a grant opens no session, and it stays: portals hold it until
// its hours come, whether or not there is a server then.
func TestGrantOutsideItsHoursOpensNothingAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann", "plant")
		begin := time.Now().UTC().Truncate(time.Hour)
		w.apply(oneForward + `hours = "` + begin.Format("15:04") + "-" + begin.Add(time.Hour).Format("15:04") + `"` + "\n")
		w.enter("ann")
		w.enter("plant")
		w.take()
		grants := w.registry.Of("ann", time.Now())
		if len(grants) != 1 {
			t.Fatalf("%d grants", len(grants))
		}
		for _, at := range []struct {
			time time.Time
			want wire.Reason
		}{
			{begin.Add(-time.Second), wire.ReasonOutsideHours}, {begin, wire.ReasonNone},
			{begin.Add(time.Hour - time.Second), wire.ReasonNone}, {begin.Add(time.Hour), wire.ReasonOutsideHours},
		} {
			if name, got := (rules{w.registry}).Look(grants[0].ID(), "plant", "ann", at.time); got != at.want || name != grants[0].Forward {
				t.Errorf("at %v: %v by %q, want %v", at.time, got, name, at.want)
			}
		}
		w.run(5 * time.Hour)
		w.want("while its hours go")
	})
}
