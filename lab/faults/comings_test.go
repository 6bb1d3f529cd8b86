package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// F49: portals that come and go, every tenth of them killed, leave nothing at the server: no descriptor, no memory, and
// nobody is said to be connected who has gone.
func TestPortalsThatComeAndGoLeaveNothing(t *testing.T) {
	const limit = 45 * time.Second
	rounds := 60
	if *full {
		rounds = 10_000
	}
	w := newNetwork(t)
	p := w.Portal(w.home.Host("comer"))
	wantOffline := func() {
		await.Within(t, "offline", limit, func() error {
			if out := w.Server.Run("status"); !strings.Contains(out, "0 of 1 connected") {
				return fmt.Errorf("the server says\n%s", out)
			}
			return nil
		})
	}
	p.Kill()
	wantOffline()
	before, took := descriptors(t, w.Server.Daemon), memory(t, w.Server.Daemon)
	for round := range rounds {
		p.Launch()
		p.WaitLog("connected to server")
		if round%10 == 9 {
			p.Kill()
		} else {
			p.Stop()
		}
	}
	wantOffline()
	await.Until(t, "as before", func() error {
		if now := descriptors(t, w.Server.Daemon); now != before {
			return fmt.Errorf("the server has %d descriptors, and had %d", now, before)
		}
		return nil
	})
	grown := memory(t, w.Server.Daemon) - took
	t.Logf("after %d comings and goings the server has grown by %d KiB", rounds, grown>>10)
	if grown > 20<<20 {
		t.Errorf("the server has grown by %d bytes", grown)
	}
}
