package tunnel

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// stopAndDrain ends the pair and waits, in a bubble, until what was under way
// has arrived nowhere.
func (p *pair) stopAndDrain() {
	p.stop()
	time.Sleep(time.Minute)
}

// On a long way the first window would hold a stream to 256 KiB a round trip.
func TestWindowFollowsTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt, size = 100 * time.Millisecond, 24 << 20
		target, dialled := net.Pipe()
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) { return dialled, nil }
		p := newPairOver(t, exit, func() (net.Conn, net.Conn) { return carriertest.Far(rtt / 2) }, nil)
		app, other := net.Pipe()
		done := openWith(p.client, benchGrant, other)
		began := time.Now()
		go func() {
			io.CopyN(app, zeros{}, size)
			app.Close()
		}()
		n, err := io.CopyN(io.Discard, target, size)
		if err != nil {
			t.Errorf("%d bytes arrived: %v", n, err)
		}
		took := time.Since(began)
		if first := time.Duration(size / (256 << 10) * rtt); took > first/3 {
			t.Errorf("%d bytes took %v; the first window alone would take %v", size, took, first)
		}
		target.Close()
		<-done
		p.stopAndDrain()
	})
}

// A cold tunnel costs the session's handshake; a warm one nothing: the first
// byte of a further stream is at its target half a round trip later.
func TestFirstByteOfAWarmTunnelTakesHalfARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 100 * time.Millisecond
		targets := make(chan net.Conn, 2)
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) {
			x, y := net.Pipe()
			targets <- y
			return x, nil
		}
		p := newPairOver(t, exit, func() (net.Conn, net.Conn) { return carriertest.Far(rtt / 2) }, nil)
		app, other := net.Pipe()
		began := time.Now()
		done := openWith(p.client, benchGrant, other)
		go app.Write([]byte("x"))
		var b [1]byte
		target := <-targets
		if _, err := io.ReadFull(target, b[:]); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > rtt/2+rtt/10 {
			t.Errorf("the first byte took %v, the round trip is %v", took, rtt)
		}
		app.Close()
		target.Close()
		<-done
		p.stopAndDrain()
	})
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// slowPair returns the ends of a connection that takes so many bytes a second.
func slowPair(rate int) (a, b net.Conn) {
	x, mid1 := net.Pipe()
	mid2, y := net.Pipe()
	for _, way := range []struct{ from, to net.Conn }{{mid1, mid2}, {mid2, mid1}} {
		go func() {
			defer way.to.Close()
			defer way.from.Close()
			buf := make([]byte, 2<<10)
			for {
				n, err := way.from.Read(buf)
				if err != nil {
					return
				}
				time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
				if _, err := way.to.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
	return x, y
}

// A bulk stream fills whatever path there is; what is typed beside it must not
// wait behind a quarter of a megabyte.
func TestKeystrokesOvertakeBulkOnASlowPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		targets := make(chan net.Conn, 2)
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) {
			x, y := net.Pipe()
			targets <- y
			return x, nil
		}
		p := newPairOver(t, exit, func() (net.Conn, net.Conn) { return slowPair(rate) }, nil)
		bulk, other := net.Pipe()
		bulkDone := openWith(p.client, wire.GrantID{1}, other)
		go io.Copy(bulk, zeros{})
		sink := <-targets
		go io.Copy(io.Discard, sink)
		typed, other := net.Pipe()
		typedDone := openWith(p.client, wire.GrantID{2}, other)
		shell := <-targets
		// The bulk stream has found out how fast the path is.
		time.Sleep(3 * time.Second)
		worst := time.Duration(0)
		var b [1]byte
		for range 50 {
			began := time.Now()
			go typed.Write(b[:])
			if _, err := io.ReadFull(shell, b[:]); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(began))
			time.Sleep(37 * time.Millisecond)
		}
		if worst > 60*time.Millisecond {
			t.Errorf("a keystroke took %v on an otherwise undelayed path", worst)
		}
		for _, c := range []net.Conn{bulk, typed, sink, shell} {
			c.Close()
		}
		<-bulkDone
		<-typedDone
		p.stopAndDrain()
	})
}
