package grants

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// TestHoursOpenAndCutAtTheVeryMinute: without a word from a server, over a week
// end and a change of clocks. A portal of ann's listens and one of factory's
// admits at the same moments.
func TestHoursOpenAndCutAtTheVeryMinute(t *testing.T) {
	// Mondays to Fridays, 8 to 18, in Berlin, where clocks go back on Sunday, 31
	// October 2027.
	hours, err := grant.NewHours("CET-1CEST,M3.5.0,M10.5.0/3", []grant.Window{{Days: 0x1f, From: 8 * 60, Until: 18 * 60}})
	if err != nil {
		t.Fatal(err)
	}
	for _, self := range []string{"ann", "exit"} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2027, 10, 29, 5, 0, 0, 0, time.UTC))) // Friday, 7 o'clock there
			ctx, cancel := context.WithCancel(t.Context())
			type event struct {
				at   time.Time
				kind Kind
				why  wire.Reason
			}
			var mu sync.Mutex
			var got []event
			k := NewKeeper(NewSet(peer(self), public(policyKey)), time.Now, func(c Change) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, event{time.Now().UTC(), c.Kind, c.Reason})
			})
			var running sync.WaitGroup
			running.Go(func() { k.Run(ctx) })
			k.Connected(stamps())
			p := permission(1, "web", "ann", "exit")
			p.Hours = hours
			put := func() {
				g := grant.Sign(p, policyKey).Stamp(stampKey, time.Now())
				if err := k.Put(g.AppendTo(nil)); err != nil {
					t.Fatal(err)
				}
			}
			g := grant.Sign(p, policyKey)
			admitted := func() bool {
				_, err := k.Admit(peer("ann"), g.ID(), nil)
				return err == nil
			}
			for range 4 { // the server stamps anew, as it does while it is there
				put()
				time.Sleep(20 * time.Hour)
			}
			cancel()
			running.Wait()
			want := []event{
				{time.Date(2027, 10, 29, 6, 0, 0, 0, time.UTC), Begin, 0},
				{time.Date(2027, 10, 29, 16, 0, 0, 0, time.UTC), End, wire.ReasonOutsideHours},
				{time.Date(2027, 11, 1, 7, 0, 0, 0, time.UTC), Begin, 0}, // an hour later by UTC
			}
			var told []event
			for _, e := range got {
				if e.kind != Renew {
					told = append(told, e)
				}
			}
			for i, e := range want {
				if i >= len(told) || told[i] != e {
					t.Fatalf("%s: changes %v, want %v", self, told, want)
				}
			}
			if self == "exit" && !admitted() {
				t.Error("not admitted on Monday")
			}
		})
	}
}
