package faults

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// F49: portals that come and go, every tenth of them killed, leave nothing at the server: no descriptor, no goroutine, no
// memory, and nobody is said to be connected who has gone.
func TestPortalsThatComeAndGoLeaveNothing(t *testing.T) {
	const limit, most = 45 * time.Second, 20 << 20
	comings := 64
	if *full {
		comings = 10_000
	}
	w := newNetwork(t)
	var comers []*daemon.Portal
	for i := range 8 {
		comers = append(comers, w.Portal(w.home.Host(fmt.Sprint("comer-", i+1))))
	}
	wantOffline := func() {
		t.Helper()
		await.Within(t, "offline", limit, func() error {
			if out := w.Server.Run("status"); !strings.Contains(out, fmt.Sprintf("0 of %d connected", len(comers))) {
				return fmt.Errorf("the server says\n%s", out)
			}
			return nil
		})
	}
	for _, p := range comers {
		p.Kill()
	}
	wantOffline()
	descriptors, goroutines, before := w.Server.Descriptors(), w.Server.Goroutines(), w.Server.Memory()
	halfway, begun := before, time.Now()
	for n := 0; n < comings; {
		for _, p := range comers {
			p.Launch()
		}
		for _, p := range comers {
			p.WaitLog("connected to server")
		}
		killed := make(map[*daemon.Portal]bool)
		for _, p := range comers {
			n++
			signal := syscall.SIGTERM
			if n%10 == 0 {
				signal, killed[p] = syscall.SIGKILL, true
			}
			p.Process().Signal(signal)
		}
		for _, p := range comers {
			if status := p.Process().Wait(); status != 0 && !killed[p] {
				t.Fatalf("%s was asked to stop and ended with status %d", p.Name(), status)
			}
		}
		if n <= comings/2 {
			halfway = w.Server.Memory()
		}
	}
	took := time.Since(begun)
	wantOffline()
	await.Until(t, "as before", func() error {
		if now := w.Server.Descriptors(); now != descriptors {
			return fmt.Errorf("the server has %d descriptors, and had %d", now, descriptors)
		}
		if now := w.Server.Goroutines(); now > goroutines+10 {
			return fmt.Errorf("the server has %d goroutines, and had %d", now, goroutines)
		}
		return nil
	})
	after := w.Server.Memory()
	t.Logf("after %d comings and goings in %v the server has grown by %d KiB, by %d of them in the second half; descriptors %d, goroutines %d, before %d",
		comings, took.Round(time.Second), (after-before)>>10, (after-halfway)>>10, descriptors, w.Server.Goroutines(), goroutines)
	if after-before > most {
		t.Errorf("the server has grown by %d bytes, want %d at most", after-before, most)
	}
	if after-halfway > most/4 {
		t.Errorf("the server has grown by %d bytes in the second half, want it to have stopped growing", after-halfway)
	}
}
