package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

func TestStreamsAreResetWhenNoCarrierComes(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, at, func(client, server *Config) {
		alone(client, server)
		client.Linger, server.Linger = 50*time.Millisecond, 50*time.Millisecond
	})
	app, done := open(t, p.client, benchGrant)
	target := <-at
	p.roads[0].a.Close()
	for _, c := range []net.Conn{app, target} {
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an application sees %v, want a reset", err)
		}
	}
	wantEnd(t, (<-done).err, EndError{Reason: wire.ReasonCarrierLost})
	wantEnd(t, <-p.clientErr, EndError{Reason: wire.ReasonCarrierLost})
	wantEnd(t, <-p.serverErr, EndError{Reason: wire.ReasonCarrierLost})
	target.Close()
}

// An application waits as long as it was promised, from the moment on at which the
// peer is heard no more, though a silent carrier is called dead only after 20 s.
func TestLingerCountsFromTheSilence(t *testing.T) {
	for _, linger := range []time.Duration{30 * time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := newPairOver(t, refuseAll, silences, func(client, server *Config) {
				alone(client, server)
				client.Linger, server.Linger = linger, linger
			})
			time.Sleep(time.Hour) // an idle peer is not silent
			p.roads[0].silence()
			began := time.Now()
			p.client.Check()
			p.server.Check()
			for _, ended := range []chan error{p.clientErr, p.serverErr} {
				wantEnd(t, <-ended, EndError{Reason: wire.ReasonCarrierLost})
				if took := time.Since(began); took < linger || took > linger+time.Second {
					t.Errorf("ended %v after the silence began, want %v", took, linger)
				}
			}
		})
	}
}

// TestLingerMayChangeWhileATunnelWaits: the new time counts from the same silence.
func TestLingerMayChangeWhileATunnelWaits(t *testing.T) {
	for _, c := range []struct{ before, after, ends time.Duration }{
		{2 * time.Minute, 30 * time.Second, 30 * time.Second},
		{2 * time.Minute, time.Second, 10 * time.Second}, // at once
		{20 * time.Second, time.Minute, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPairOver(t, refuseAll, silences, func(client, server *Config) {
				alone(client, server)
				client.Linger, server.Linger = c.before, c.before
			})
			time.Sleep(time.Hour)
			p.roads[0].silence()
			began := time.Now()
			p.client.Check()
			p.server.Check()
			time.Sleep(10 * time.Second)
			p.client.SetLinger(c.after)
			p.server.SetLinger(c.after)
			for _, ended := range []chan error{p.clientErr, p.serverErr} {
				wantEnd(t, <-ended, EndError{Reason: wire.ReasonCarrierLost})
				if took := time.Since(began); took < c.ends || took > c.ends+time.Second {
					t.Errorf("%v, then %v: ended %v after the silence began, want %v", c.before, c.after, took, c.ends)
				}
			}
		})
	}
}

func TestWhatIsOpenedWithoutACarrierWaits(t *testing.T) {
	p := newPair(t, dialTo(service(t, echo)), alone)
	p.proven()
	p.roads[0].a.Close()
	waitFor(t, "the tunnel lingers", func() bool { return !p.client.Stats().Lingering.IsZero() && !p.server.Stats().Lingering.IsZero() })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	app, other := carriertest.TCP(t)
	defer app.Close()
	if _, err := p.client.OpenStream(ctx, benchGrant, nil, netip.AddrPort{}, other); !errors.Is(err, context.Canceled) {
		t.Errorf("opened without a carrier: %v", err)
	}
	done := openWith(p.client, benchGrant, other)
	waitFor(t, "the stream to wait", func() bool {
		p.client.mu.Lock()
		defer p.client.mu.Unlock()
		return p.client.waiting == 1
	})
	p.connect()
	app.Write([]byte("x"))
	app.CloseWrite()
	if got, err := io.ReadAll(app); string(got) != "x" || err != nil {
		t.Errorf("the stream that waited: %q, %v", got, err)
	}
	p.wantWell(done)
}

func TestDrainWaitsForStreamsAndRefusesNewOnes(t *testing.T) {
	at := make(targets, 2)
	p := newPair(t, at, nil)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	ctx, cancel := context.WithCancelCause(context.Background())
	over := errors.New("no more time")
	cancel(over)
	if err := p.server.Drain(ctx); !errors.Is(err, over) {
		t.Errorf("drained: %v, with a stream open", err)
	}
	_, refused := open(t, p.client, benchGrant)
	wantEnd(t, (<-refused).err, EndError{Peer: true, Reason: wire.ReasonShutdown})
	other, mine := carriertest.TCP(t)
	defer other.Close()
	defer mine.Close()
	wantEnd(t, (<-openWith(p.server, benchGrant, mine)).err, EndError{Reason: wire.ReasonShutdown})
	other.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was not opened ended with %v, want a reset", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.server.Drain(context.Background()) }()
	app.Write([]byte("last words"))
	app.CloseWrite()
	if got, err := io.ReadAll(target); string(got) != "last words" || err != nil {
		t.Errorf("the stream that was open: %q, %v", got, err)
	}
	target.Close()
	if err := <-drained; err != nil {
		t.Errorf("drained: %v", err)
	}
	if o := <-done; o.err != nil {
		t.Errorf("the stream that was open: %v", o.err)
	}
}

// What an application resets while there is no carrier, the peer is told when
// there is one.
func TestResetWithoutACarrierIsToldLater(t *testing.T) {
	for _, side := range []string{"opener", "exit"} {
		at := make(targets, 1)
		p := newPair(t, at, alone)
		app, done := open(t, p.client, benchGrant)
		target := <-at
		f, in := openFlow(t, p.client, []byte("x"))
		udp := <-at
		p.proven()
		p.roads[0].a.Close()
		waitFor(t, "both tunnels linger", func() bool { return !p.client.Stats().Lingering.IsZero() && !p.server.Stats().Lingering.IsZero() })
		cutter := p.client
		if side == "exit" {
			cutter = p.server
		}
		if got := cutter.CutGrant(benchGrant, wire.ReasonGrantRemoved); got != 2 {
			t.Errorf("cut by the %s: %d, want 2", side, got)
		}
		p.connect()
		for _, c := range []net.Conn{app, target} {
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut by the %s: an application sees %v, want a reset", side, err)
			}
		}
		wantEnd(t, (<-done).err, EndError{Peer: side == "exit", Reason: wire.ReasonGrantRemoved})
		wantEnd(t, <-in.ended, EndError{Peer: side == "exit", Reason: wire.ReasonGrantRemoved})
		f.Close(wire.ReasonIdle)
		p.wantNothingLeft()
		target.Close()
		udp.Close()
		p.stop()
	}
}
