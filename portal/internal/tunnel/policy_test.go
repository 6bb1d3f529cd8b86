package tunnel

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// What may take direct paths only waits for one, for a while, and goes over no relay:
// neither when the direct path dies, nor when the peer moves it there.
func TestDirectOnlyGoesOverNoRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const linger = 30 * time.Second
		p := newPairOver(t, echoes, silences, func(client, server *Config) {
			alone(client, server)
			client.Paths, server.Paths = grant.DirectOnly, grant.DirectOnly
			client.Linger, server.Linger = linger, linger
		})
		refused := func() {
			t.Helper()
			began := time.Now()
			app, other := net.Pipe()
			_, err := p.client.OpenStream(t.Context(), benchGrant, nil, netip.AddrPort{}, other)
			app.Close()
			wantEnd(t, err, EndError{Reason: wire.ReasonNotDirect})
			if took := time.Since(began); took != directWait {
				t.Errorf("refused after %v", took)
			}
		}
		refused()
		if _, err := p.client.Ping(t.Context()); err != nil {
			t.Errorf("the tunnel itself: %v", err)
		}

		// One that waits is opened on the first direct carrier.
		k, stop := p.tick(100 * time.Millisecond)
		time.Sleep(directWait / 2)
		first := p.connectDirect(silences)
		time.Sleep(time.Second)
		if direct, relayed, flows := onDirect(p.client); direct != 1 || relayed != 0 || !flows {
			t.Errorf("%d streams on the direct path, %d by the relay, flows: %v", direct, relayed, flows)
		}
		// It waits for another when that has died.
		k.longest()
		first.client.Abort(errors.New("the test breaks it"))
		time.Sleep(linger / 2)
		if direct, relayed, _ := onDirect(p.client); direct+relayed != 0 {
			t.Errorf("%d streams on carriers, %d of them direct", direct+relayed, direct)
		}
		second := p.connectDirect(silences)
		time.Sleep(time.Second)
		if gap := k.longest(); gap < linger/2 || gap > linger/2+time.Second {
			t.Errorf("nothing came back for %v, there was no direct path for %v", gap, linger/2)
		}
		// Nor does anything begin on a direct carrier that is silent, and not dead yet.
		second.silence()
		time.Sleep(3 * time.Second)
		refused()
		// And is reset when none comes.
		second.client.Abort(errors.New("the test breaks it"))
		began := time.Now()
		wantEnd(t, (<-k.done).err, EndError{Reason: wire.ReasonNotDirect})
		if took := time.Since(began); took > linger+time.Second {
			t.Errorf("it ended %v after its last direct path", took)
		}
		stop()
		if s := p.client.Stats(); !s.Up || s.Streams != 0 {
			t.Errorf("the tunnel is up: %v, with %d streams", s.Up, s.Streams)
		}
		refused()
		p.stopAndDrain()
	})
}

// A peer whose policy is another, or who breaks it, gets neither a stream nor datagrams
// by a relay.
func TestDirectOnlyIsHeldAgainstThePeerToo(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, at, func(client, server *Config) {
		alone(client, server)
		server.Paths = grant.DirectOnly
	})
	direct := p.connectDirect(overTCP(t))
	app, done := open(t, p.client, benchGrant)
	target := <-at
	waitFor(t, "the stream to be on the direct path", func() bool { n, _, _ := onDirect(p.server); return n == 1 })
	direct.client.Abort(errors.New("the test breaks it")) // the opener moves to the relay
	wantEnd(t, (<-done).err, EndError{Peer: true, Reason: wire.ReasonNotDirect})
	io.Copy(io.Discard, target)
	target.Close()
	app.Close()
	p.wantNothingLeft()
}

// Where direct paths are forbidden none is taken, and what is on one leaves it.
func TestDirectNeverTakesNone(t *testing.T) {
	p := newPair(t, dialTo(service(t, echo)), alone)
	p.connectDirect(overTCP(t))
	app, _ := open(t, p.client, benchGrant)
	bounce := func() {
		t.Helper()
		app.Write([]byte("x"))
		if _, err := io.ReadFull(app, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	bounce()
	if n, _, _ := onDirect(p.client); n != 1 {
		t.Fatalf("%d streams on the direct path", n)
	}
	p.client.SetPaths(grant.DirectNever)
	p.server.SetPaths(grant.DirectNever)
	waitFor(t, "the direct carrier to be closed", func() bool { return p.client.Stats().Carriers == 1 && p.server.Stats().Carriers == 1 })
	bounce()
	a, b := overTCP(t)()
	c, s, err := carriertest.OverTCP(t.Context(), a, b, p.meet.client, p.meet.server, wire.NewSessionID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{p.client.Attach(c, theWay{direct: true}), p.server.Attach(s, theWay{direct: true})} {
		if !errors.Is(err, errForbidden) {
			t.Errorf("a direct carrier: %v", err)
		}
	}
	c.Abort(errForbidden)
	s.Abort(errForbidden)
}

// Where there is no other carrier, one that was forbidden waits for one for a while, and no longer.
func TestForbiddenCarrierDoesNotStayForWantOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBarePair(t, refuseAll, nil, alone)
		p.connectDirect(func() (net.Conn, net.Conn) { return carriertest.Far(10 * time.Millisecond) })
		p.client.SetPaths(grant.DirectNever)
		p.server.SetPaths(grant.DirectNever)
		for _, want := range []int{1, 0} {
			time.Sleep(leaveTime/2 + time.Second)
			for _, tun := range []*Tunnel{p.client, p.server} {
				if n := tun.Stats().Carriers; n != want {
					t.Errorf("%d carriers, want %d", n, want)
				}
			}
		}
		p.stopAndDrain()
	})
}
