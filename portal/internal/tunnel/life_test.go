package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

func TestPingMeasuresTheRoundTrip(t *testing.T) {
	p := newPair(t, refuseAll, nil)
	for _, tun := range []*Tunnel{p.client, p.server} {
		took, err := tun.Ping(context.Background())
		if err != nil || took <= 0 || took > 5*time.Second {
			t.Errorf("ping: %v, %v", took, err)
		}
		if got := tun.Stats().RTT; got <= 0 {
			t.Errorf("RTT after a ping: %v", got)
		}
	}
}

func TestPeerIsTheCertificateThatWasProven(t *testing.T) {
	p := newPair(t, refuseAll, nil)
	if got := p.client.Peer().DNSNames[0]; got != "server" {
		t.Errorf("the client's peer is %q", got)
	}
	if got := p.server.Peer().DNSNames[0]; got != "client" {
		t.Errorf("the server's peer is %q", got)
	}
}

func TestCloseTellsThePeerAndResetsWhatIsOpen(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, at, nil)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	defer target.Close()
	p.server.Close(wire.ReasonRevoked, "the certificate was revoked")
	wantEnd(t, <-p.serverErr, EndError{Reason: wire.ReasonRevoked})
	wantEnd(t, <-p.clientErr, EndError{Peer: true, Reason: wire.ReasonRevoked})
	wantEnd(t, (<-done).err, EndError{Peer: true, Reason: wire.ReasonRevoked})
	for _, c := range []net.Conn{app, target} {
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an application sees %v, want a reset", err)
		}
	}
}

func TestStopEndsBothSidesAndLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	at := make(targets, 1)
	p := newPair(t, at, nil)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	f, in := openFlow(t, p.client, []byte("x"))
	(<-at).Close()
	p.stop()
	if err := <-p.clientErr; err != nil {
		var end *EndError
		if !errors.As(err, &end) || end.Reason != wire.ReasonShutdown {
			t.Errorf("the client's Run: %v", err)
		}
	}
	if (<-done).err == nil || <-in.ended == nil {
		t.Error("a stream or flow ended well when the tunnel stopped")
	}
	if f.Send(nil) {
		t.Error("a flow of a stopped tunnel takes datagrams")
	}
	app.Close()
	target.Close()
	waitFor(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// An owner may try another tunnel with what it wanted to open here.
func TestClosedTunnelDoesNotTouchTheApplication(t *testing.T) {
	p := newPair(t, refuseAll, nil)
	p.stop()
	app, other := carriertest.TCP(t)
	defer app.Close()
	defer other.Close()
	if o := <-openWith(p.client, benchGrant, other); !errors.Is(o.err, ErrClosed) {
		t.Fatalf("open on a closed tunnel: %v", o.err)
	}
	if _, err := app.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(other, b[:]); err != nil {
		t.Errorf("the application's connection: %v", err)
	}
	if _, err := p.client.OpenFlow(context.Background(), benchGrant, nil, netip.AddrPort{}, nil, newInbox()); !errors.Is(err, ErrClosed) {
		t.Errorf("a flow on a closed tunnel: %v", err)
	}
}

func TestOpenWaitsForTheTunnelNoLongerThanItsContext(t *testing.T) {
	tun := New(Config{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	app, other := carriertest.TCP(t)
	defer app.Close()
	defer other.Close()
	if _, err := tun.OpenStream(ctx, benchGrant, nil, netip.AddrPort{}, other); !errors.Is(err, context.Canceled) {
		t.Errorf("open before the tunnel is up: %v", err)
	}
}

// When streams are many they spread over further carriers; when one dies, its
// own go on over the others.
func TestStreamsSpreadOverCarriersAndSurviveOne(t *testing.T) {
	at := make(targets, 16)
	p := newPair(t, at, nil)
	var apps, remote []net.Conn
	for range 4 {
		app, _ := open(t, p.client, benchGrant)
		target := <-at
		t.Cleanup(func() { target.Close() })
		apps, remote = append(apps, app), append(remote, target)
		if len(apps) == 2 {
			waitFor(t, "a second carrier", func() bool {
				return p.client.Stats().Carriers == 2 && p.server.Stats().Carriers == 2
			})
		}
	}
	p.mu.Lock()
	first, second := p.roads[0], p.roads[1]
	p.mu.Unlock()
	if got := second.client.Stats().Sent; got < 100 {
		t.Errorf("%d bytes were sent on the second carrier, want streams there", got)
	}
	first.a.Close()
	for i, app := range apps {
		if _, err := app.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := io.ReadFull(remote[i], b[:]); err != nil || b[0] != 'x' {
			t.Errorf("stream %d after the loss of a carrier: %q, %v", i, b, err)
		}
	}
}

// The rest runs in synctest bubbles: over net.Pipe, with a clock of its own.

func pipePair(t *testing.T, exit Handler, change func(client, server *Config)) *pair {
	t.Helper()
	return newPairOver(t, exit, func() (net.Conn, net.Conn) { return net.Pipe() }, change)
}

func TestIdleTunnelEndsOnBothSides(t *testing.T) {
	for _, asks := range []string{"client", "server"} {
		synctest.Test(t, func(t *testing.T) {
			p := pipePair(t, refuseAll, func(client, server *Config) {
				if asks == "client" {
					client.Idle = 5 * time.Minute
				} else {
					server.Idle = 5 * time.Minute
				}
			})
			began := time.Now()
			if err := errors.Join(<-p.clientErr, <-p.serverErr); err != nil {
				t.Errorf("idle, asked by the %s: %v", asks, err)
			}
			if took := time.Since(began); took < 5*time.Minute || took > 5*time.Minute+closeSlack {
				t.Errorf("idle, asked by the %s: ended after %v", asks, took)
			}
		})
	}
}

// closeSlack is how long two portals may take to part.
const closeSlack = 3 * time.Second

func TestTunnelWithAStreamIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) { return b, nil }
		p := pipePair(t, exit, func(client, server *Config) {
			client.Idle = 5 * time.Minute
			server.Idle = time.Minute
		})
		app, other := net.Pipe()
		done := openWith(p.client, benchGrant, other)
		time.Sleep(time.Hour)
		go app.Write([]byte("still there"))
		var got [11]byte
		if _, err := io.ReadFull(a, got[:]); err != nil {
			t.Fatalf("after an hour: %v", err)
		}
		app.Close()
		a.Close()
		<-done
		began := time.Now()
		<-p.clientErr
		if took := time.Since(began); took < time.Minute || took > time.Minute+closeSlack {
			t.Errorf("ended %v after the last stream", took)
		}
	})
}

// silence is a connection whose writes vanish once it is cut, as when a cable
// is pulled: no end, no error.
type silence struct {
	net.Conn
	mu  sync.Mutex
	cut bool
}

func (s *silence) Write(b []byte) (int, error) {
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	if cut {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// silences are connections that can be cut.
func silences() (net.Conn, net.Conn) {
	a, b := net.Pipe()
	return &silence{Conn: a}, &silence{Conn: b}
}

// silence cuts the carrier's connection, both ways.
func (r *road) silence() {
	for _, c := range []net.Conn{r.a, r.b} {
		s := c.(*silence)
		s.mu.Lock()
		s.cut = true
		s.mu.Unlock()
	}
}

func TestSilentPathIsFoundOutOnlyWhenSomethingIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, far := net.Pipe()
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) { return far, nil }
		told := make(chan Trouble, 10)
		p := newPairOver(t, exit, silences, func(client, server *Config) {
			alone(client, server)
			client.Trouble = func(s Trouble) { told <- s }
		})
		app, other := net.Pipe()
		done := openWith(p.client, benchGrant, other)
		go at.Read(make([]byte, 1))
		app.Write([]byte("x"))
		// A slow application and a silent night are no dead carrier.
		time.Sleep(time.Hour)
		if got := p.client.Stats().Carriers; got != 1 || len(told) != 0 {
			t.Fatalf("after an hour of silence: %d carriers, %d troubles", got, len(told))
		}
		p.roads[0].silence()
		began := time.Now()
		app.Write([]byte("y"))
		if got := <-told; got != Silent {
			t.Errorf("told: %v, want silent", got)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("silence was found out after %v", took)
		}
		if got := <-told; got != Lost {
			t.Errorf("told: %v, want lost", got)
		}
		wantEnd(t, (<-done).err, EndError{Reason: wire.ReasonCarrierLost})
		if took := time.Since(began); took < defaultLinger || took > defaultLinger+time.Second {
			t.Errorf("the stream ended %v after the silence began", took)
		}
		at.Close()
	})
}

// An idle tunnel must cost next to nothing on a metered line.
func TestIdleTunnelIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipePair(t, refuseAll, nil)
		time.Sleep(time.Minute)
		before := p.client.Stats()
		time.Sleep(24 * time.Hour)
		after := p.client.Stats()
		// A PING and its PONG have 16 bytes each. TLS, TCP and IP make about
		// 140 of each, with the ACK.
		pings := (after.Sent - before.Sent + after.Received - before.Received) / 32
		if pings < 24*60/5 || pings*280 > 100_000 {
			t.Errorf("%d PINGs in a day", pings)
		}
	})
}

// Fifty applications that never read hold up neither the others nor the
// portal's memory.
func TestApplicationsThatDoNotReadStallAlone(t *testing.T) {
	const slow, limit = 50, 64 << 20
	at := make(targets, slow+1)
	p := newPair(t, at, func(client, server *Config) {
		client.Budget, server.Budget = NewBudget(limit), NewBudget(limit)
	})
	var writing sync.WaitGroup
	var apps []net.Conn
	for range slow {
		app, _ := open(t, p.client, benchGrant)
		target := <-at
		target.(*net.TCPConn).SetReadBuffer(4096)
		apps = append(apps, app, target)
		writing.Go(func() {
			// Until the test closes it.
			for chunk := make([]byte, 1<<16); ; {
				if _, err := app.Write(chunk); err != nil {
					return
				}
			}
		})
	}
	app, _ := open(t, p.client, benchGrant)
	target := <-at
	data := random(32 << 20)
	writing.Go(func() {
		app.Write(data)
		app.CloseWrite()
	})
	got, err := io.ReadAll(target)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the stream that is read: %d bytes of %d, %v", len(got), len(data), err)
	}
	for _, tun := range []*Tunnel{p.client, p.server} {
		if held := tun.Stats().Held; held > limit/2 {
			t.Errorf("%d bytes are held for %d streams that nobody reads, a tunnel may hold %d", held, slow, limit/2)
		}
	}
	for _, c := range apps {
		c.Close()
	}
	target.Close()
	writing.Wait()
}
