package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// open opens a stream on tun and returns the application's end and a channel
// for the outcome.
func open(t testing.TB, tun *Tunnel, grant wire.GrantID) (app *net.TCPConn, outcome chan outcome) {
	t.Helper()
	app, other := carriertest.TCP(t)
	outcome = openWith(tun, grant, other)
	t.Cleanup(func() { app.Close() })
	return app, outcome
}

func openWith(tun *Tunnel, grant wire.GrantID, app net.Conn) chan outcome {
	done := make(chan outcome, 1)
	go func() {
		totals, err := tun.OpenStream(context.Background(), grant, []byte("grant"), netip.AddrPort{}, app)
		done <- outcome{totals, err}
	}()
	return done
}

type outcome struct {
	totals Totals
	err    error
}

// targets is a Handler that returns one end of a new connection and hands the
// other to the test.
type targets chan net.Conn

func (c targets) Open(context.Context, From, wire.Open) (net.Conn, error) {
	a, b, err := carriertest.Loopback()
	if err != nil {
		return nil, err
	}
	c <- b
	return a, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func wantEnd(t testing.TB, err error, want EndError) {
	t.Helper()
	var got *EndError
	if !errors.As(err, &got) || got.Reason != want.Reason || got.Peer != want.Peer {
		t.Errorf("outcome: %v, want reason %v, the peer's: %v", err, want.Reason, want.Peer)
	}
}

func TestBytesArriveWholeBothWaysAndHalvesEndApart(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, at, nil)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	request, answer := random(3<<20), random(5<<20)

	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := app.Write(request); err != nil {
			t.Errorf("write the request: %v", err)
		}
		app.CloseWrite()
	})
	got, err := io.ReadAll(target)
	if err != nil || !bytes.Equal(got, request) {
		t.Fatalf("request: %d bytes of %d, equal: %v, %v", len(got), len(request), bytes.Equal(got, request), err)
	}
	sending.Wait()
	// The target has seen the end of the request, and now answers.
	sending.Go(func() {
		if _, err := target.Write(answer); err != nil {
			t.Errorf("write the answer: %v", err)
		}
		target.Close()
	})
	if got, err = io.ReadAll(app); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("answer: %d bytes of %d, equal: %v, %v", len(got), len(answer), bytes.Equal(got, answer), err)
	}
	sending.Wait()
	result := <-done
	if want := (Totals{Sent: uint64(len(request)), Received: uint64(len(answer))}); result.err != nil || result.totals != want {
		t.Errorf("outcome: %+v, %v; want %+v", result.totals, result.err, want)
	}
	waitFor(t, "both sides forget the stream", func() bool {
		return p.client.Stats().Streams == 0 && p.server.Stats().Streams == 0
	})
	if got := p.client.Stats().Held; got != 0 {
		t.Errorf("%d bytes are held after the stream", got)
	}
}

// In ssh the server speaks first: the client's silence must not hold it up.
func TestServerMaySpeakFirst(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, at, nil)
	app, _ := open(t, p.client, benchGrant)
	target := <-at
	defer target.Close()
	if _, err := target.Write([]byte("SSH-2.0-x\r\n")); err != nil {
		t.Fatal(err)
	}
	var got [11]byte
	if _, err := io.ReadFull(app, got[:]); err != nil || string(got[:]) != "SSH-2.0-x\r\n" {
		t.Errorf("banner: %q, %v", got, err)
	}
}

// Either side opens streams on the one tunnel.
func TestServerSideOpensStreamsToo(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, refuseAll, func(client, _ *Config) { client.Handler = at })
	app, _ := open(t, p.server, benchGrant)
	target := <-at
	defer target.Close()
	if _, err := app.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var got [1]byte
	if _, err := io.ReadFull(target, got[:]); err != nil || got[0] != 'x' {
		t.Errorf("received: %q, %v", got, err)
	}
}

func TestManyStreamsCarryTheirOwnBytes(t *testing.T) {
	p := newPair(t, dialTo(service(t, echo)), nil)
	var running sync.WaitGroup
	for i := range 40 {
		running.Go(func() {
			app, done := open(t, p.client, benchGrant)
			data := random(10000 * (i + 1))
			go func() {
				app.Write(data)
				app.CloseWrite()
			}()
			got, err := io.ReadAll(app)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("stream %d: %d bytes came back of %d: %v", i, len(got), len(data), err)
			}
			if o := <-done; o.err != nil {
				t.Errorf("stream %d: %v", i, o.err)
			}
		})
	}
	running.Wait()
}

func TestApplicationsResetIsCarriedThrough(t *testing.T) {
	for _, side := range []string{"opener", "target"} {
		at := make(targets, 1)
		p := newPair(t, at, nil)
		app, done := open(t, p.client, benchGrant)
		target := (<-at).(*net.TCPConn)
		breaks, sees := app, target
		want := EndError{Reason: wire.ReasonTargetReset}
		if side == "target" {
			breaks, sees = target, app
			want.Peer = true
		}
		breaks.SetLinger(0)
		breaks.Close()
		if _, err := io.ReadAll(sees); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset by the %s: the other side sees %v, want a reset", side, err)
		}
		wantEnd(t, (<-done).err, want)
		target.Close()
	}
}

func TestRefusalReachesTheApplicationAndTheCaller(t *testing.T) {
	var refuse handler = func(context.Context, wire.Open) (net.Conn, error) {
		return nil, Refuse(wire.ReasonTargetRefused, "no one listens")
	}
	p := newPair(t, refuse, nil)
	app, done := open(t, p.client, benchGrant)
	if _, err := io.ReadAll(app); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the application sees %v, want a reset", err)
	}
	err := (<-done).err
	wantEnd(t, err, EndError{Peer: true, Reason: wire.ReasonTargetRefused})
	if want := `the peer said: target refused: "no one listens"`; err.Error() != want {
		t.Errorf("error: %v, want %v", err, want)
	}
	if got := p.server.Stats().Refused; got != 1 {
		t.Errorf("refused: %d, want 1", got)
	}
}

// An error that is no refusal may hold what the peer must not read.
func TestHandlersOwnErrorsStayHome(t *testing.T) {
	var broken handler = func(context.Context, wire.Open) (net.Conn, error) {
		return nil, errors.New("secret: /etc/netport")
	}
	p := newPair(t, broken, nil)
	_, done := open(t, p.client, benchGrant)
	var end *EndError
	if err := (<-done).err; !errors.As(err, &end) || end.Reason != wire.ReasonInternal || end.Text != "" {
		t.Errorf("the peer was told %v", err)
	}
}

// The exit is asked with the grant whole until it has accepted it, then with
// what the tunnel kept; the application's first bytes never wait for it.
func TestGrantTravelsWholeUntilThePeerHoldsIt(t *testing.T) {
	type asked struct {
		Grant  wire.GrantID
		Signed string
		Source string
	}
	var mu sync.Mutex
	var got []asked
	held := true
	addr := service(t, echo)
	var exit handler = func(ctx context.Context, open wire.Open) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, asked{open.Grant, string(open.Signed), open.Source.String()})
		if !held {
			return nil, Refuse(wire.ReasonNotGranted, "")
		}
		return dialTo(addr)(ctx, open)
	}
	p := newPair(t, exit, nil)
	source := netip.MustParseAddrPort("192.0.2.1:5555")
	sent := func() uint64 { return p.client.Stats().Sent }
	signed := random(2000)
	once := func() (bytes uint64, err error) {
		app, other := carriertest.TCP(t)
		defer app.Close()
		before := sent()
		done := make(chan error, 1)
		go func() {
			_, err := p.client.OpenStream(context.Background(), benchGrant, signed, source, other)
			done <- err
		}()
		app.Write([]byte("x"))
		var b [1]byte
		io.ReadFull(app, b[:])
		app.Close()
		err = <-done
		return sent() - before, err
	}
	whole, err := once()
	if err != nil || whole < 2000 {
		t.Fatalf("first stream: %d bytes sent, %v; want the whole grant", whole, err)
	}
	if short, err := once(); err != nil || short > 500 {
		t.Fatalf("second stream: %d bytes sent, %v; want the grant's id alone", short, err)
	}
	mu.Lock()
	held = false
	mu.Unlock()
	_, err = once()
	wantEnd(t, err, EndError{Peer: true, Reason: wire.ReasonNotGranted})
	mu.Lock()
	held = true
	mu.Unlock()
	if whole, err := once(); err != nil || whole < 2000 {
		t.Errorf("stream after a refusal: %d bytes sent, %v; want the whole grant", whole, err)
	}
	one := asked{benchGrant, string(signed), source.String()}
	if diff := cmp.Diff([]asked{one, one, one, one}, got); diff != "" {
		t.Errorf("the Handler was asked (-want +got):\n%s", diff)
	}
}

func TestCutEndsTheStreamsOfOneGrantOnBothSides(t *testing.T) {
	for _, side := range []string{"opener", "exit"} {
		at := make(targets, 2)
		p := newPair(t, at, nil)
		cut, cutDone := open(t, p.client, wire.GrantID{1})
		cutTarget := <-at
		kept, _ := open(t, p.client, wire.GrantID{2})
		keptTarget := <-at
		cutter, peer := p.client, false
		if side == "exit" {
			cutter, peer = p.server, true
		}
		if got := cutter.CutGrant(wire.GrantID{1}, wire.ReasonGrantRemoved); got != 1 {
			t.Errorf("cut by the %s: %d streams, want 1", side, got)
		}
		for _, c := range []net.Conn{cut, cutTarget} {
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut by the %s: an application sees %v, want a reset", side, err)
			}
		}
		wantEnd(t, (<-cutDone).err, EndError{Peer: peer, Reason: wire.ReasonGrantRemoved})
		if _, err := kept.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := io.ReadFull(keptTarget, b[:]); err != nil {
			t.Errorf("cut by the %s: the stream of another grant: %v", side, err)
		}
		cutTarget.Close()
		keptTarget.Close()
	}
}

// A grant may be removed while the exit still dials.
func TestCutReachesADialThatIsUnderWay(t *testing.T) {
	dialling := make(chan struct{})
	var exit handler = func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p := newPair(t, exit, nil)
	_, done := open(t, p.client, benchGrant)
	<-dialling
	if got := p.server.CutGrant(benchGrant, wire.ReasonGrantRemoved); got != 1 {
		t.Errorf("cut: %d, want 1", got)
	}
	wantEnd(t, (<-done).err, EndError{Peer: true, Reason: wire.ReasonGrantRemoved})
}

// What the peer drops while the exit dials is not dialled for nothing.
func TestApplicationThatGivesUpEndsTheDial(t *testing.T) {
	dialling := make(chan struct{})
	ended := make(chan struct{})
	var exit handler = func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	p := newPair(t, exit, nil)
	app, done := open(t, p.client, benchGrant)
	<-dialling
	app.SetLinger(0)
	app.Close()
	<-ended
	wantEnd(t, (<-done).err, EndError{Reason: wire.ReasonTargetReset})
}
