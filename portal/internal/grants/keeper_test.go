package grants

import (
	"context"
	"crypto/ed25519"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

func TestKeeperCutsAtTheVerySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan Change, 4)
		k := NewKeeper(NewSet(peer("exit"), public(policyKey)), time.Now, func(c Change) { got <- c })
		var running sync.WaitGroup
		running.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		k.Connected([]ed25519.PublicKey{public(stampKey)})
		p := permission(1, "web", "ann", "exit")
		p.End = time.Now().Add(90 * time.Minute)
		g := grant.Sign(p, policyKey).Stamp(stampKey, time.Now())
		if err := k.Put(g.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90*time.Minute - time.Second)
		synctest.Wait()
		if c := <-got; c.Kind != Begin || len(got) > 0 {
			t.Fatalf("a second before its end: kind %d and %d more changes", c.Kind, len(got))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if c := <-got; c.Kind != End || c.Reason != wire.ReasonGrantExpired || len(got) > 0 {
			t.Fatalf("at its end: kind %d, %v and %d more changes", c.Kind, c.Reason, len(got))
		}
		cancel()
		running.Wait()
	})
}
