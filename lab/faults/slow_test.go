package faults

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// T16: applications that never read stall their own streams and nobody else's, and cost no more memory than the portal
// has set aside for all.
func TestSlowReadersStallOnlyThemselves(t *testing.T) {
	const readers, budget, slack = 50, 256 << 20, 32 << 20
	w := newWorld(t)
	w.allow(append(w.echoes(), w.other())...)
	hold(t, w.plc.Listen(otherPort), func(net.Conn) {})
	traffic := w.startTraffic()
	before := map[*daemon.Portal]int64{w.laptop: w.laptop.Memory(), w.factory: w.factory.Memory()}

	var taken atomic.Int64
	for range readers {
		conn := w.dial("tcp", otherEntry)
		go func() {
			block := make([]byte, 256<<10)
			for {
				n, err := conn.Write(block)
				taken.Add(int64(n))
				if err != nil {
					return // closed with the test
				}
			}
		}()
	}
	last := int64(-1)
	await.Until(t, "stalled", func() error {
		await.Passing(t, time.Second)
		now := taken.Load()
		if moved := now != last; moved {
			last = now
			return fmt.Errorf("%d bytes were taken, and more are", now)
		}
		return nil
	})
	for p, was := range before {
		grown := p.Memory() - was
		t.Logf("%d readers that do not read: %s grew by %d MiB; %d MiB were taken", readers, p.Name(), grown>>20, taken.Load()>>20)
		if grown > budget+slack {
			t.Errorf("the memory of %s grew by %d bytes, want %d at most", p.Name(), grown, budget+slack)
		}
	}
	traffic.end()
}
