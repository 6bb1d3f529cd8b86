package control

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// S3: what a server has for each portal that has nothing to say is one goroutine, on the stack
// that waiting needs and not on the one that the handshake and its messages took.
func TestIdleConnectionIsOneGoroutineOnLittleStack(t *testing.T) {
	const (
		conns = 200
		limit = 6 << 10 // bytes; 4 KB, and more under the race detector
	)
	r := newRoles(t)
	before, stacks := runtime.NumGoroutine(), stackBytes()
	for range conns {
		a, b := tcpPipe(t)
		heard := make(chan wire.FromPortal)
		c, _, s := serverAgainst(t, r, a, b, func(m wire.FromPortal) error { heard <- m; return nil })
		c.Send(wire.PeerState{Name: "q", Online: true})
		s.want(wire.TypePeerState)
		s.send(wire.RelayTimes{})
		<-heard
	}
	late := time.After(10 * time.Second)
	for runtime.NumGoroutine()-before > conns {
		select {
		case <-late:
			t.Fatalf("%d goroutines for %d connections", runtime.NumGoroutine()-before, conns)
		default:
			runtime.Gosched()
		}
	}
	runtime.GC() // stacks that nobody has any more are given back
	got := (stackBytes() - stacks) / conns
	t.Logf("%d bytes of stack for each of %d connections", got, conns)
	if got > limit {
		t.Errorf("a connection has %d bytes of stack, want %d at most", got, limit)
	}
}

// stackBytes is what the stacks of all goroutines take.
func stackBytes() int {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
