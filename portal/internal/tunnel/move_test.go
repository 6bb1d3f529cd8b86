package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// transfer sends random bytes both ways between two applications, each as fast
// as the other takes them, ends both halves and wants everything to arrive.
type transfer struct {
	running  sync.WaitGroup
	mu       sync.Mutex
	received int
}

func (x *transfer) run(t *testing.T, a, b net.Conn, size int) {
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		data := random(size)
		x.running.Go(func() {
			if _, err := way[0].Write(data); err != nil {
				t.Errorf("an application could not write: %v", err)
			}
			way[0].(*net.TCPConn).CloseWrite()
		})
		x.running.Go(func() {
			h := sha256.New()
			n, err := io.Copy(h, io.TeeReader(way[1], x))
			if err != nil || int(n) != size || [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
				t.Errorf("%d of %d bytes arrived, the right ones: %v, %v", n, size, [32]byte(h.Sum(nil)) == sha256.Sum256(data), err)
			}
		})
	}
}

func (x *transfer) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.received += len(b)
	return len(b), nil
}

func (x *transfer) reached(n int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.received >= n
}

// wantWell checks that a stream ended well at its opener, and that nothing is
// left of any on either side.
func (p *pair) wantWell(done chan outcome) {
	p.t.Helper()
	if o := <-done; o.err != nil {
		p.t.Errorf("the stream ended with: %v", o.err)
	}
	p.wantNothingLeft()
}

func (p *pair) wantNothingLeft() {
	p.t.Helper()
	waitFor(p.t, "nothing is left", func() bool {
		c, s := p.client.Stats(), p.server.Stats()
		return c.Streams+s.Streams+c.Flows+s.Flows == 0 && c.Held == 0 && s.Held == 0
	})
	if c, s := p.client.Stats().Stray, p.server.Stats().Stray; c+s != 0 {
		p.t.Errorf("%d and %d stray frames", c, s)
	}
}

// One connection lives through twenty carriers: broken, left in silence, and
// retired for a better one.
func TestTransferSurvivesTwentyMoves(t *testing.T) {
	const size, moves = 24 << 20, 20
	at := make(targets, 1)
	p := newPair(t, at, alone)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	var x transfer
	x.run(t, app, target, size)
	now := p.roads[0]
	for i := range moves {
		waitFor(t, "the transfer to go on", func() bool { return x.reached((i + 1) * 2 * size / (moves + 2)) })
		switch i % 4 {
		case 0: // both ends see it die, then another comes
			now.a.Close()
			now = p.connect()
		case 1: // another is there before
			old := now
			now = p.connect()
			old.b.Close()
		case 2: // both say that it is silent: nothing dies
			for _, tun := range []*Tunnel{p.client, p.server} {
				tun.mu.Lock()
				l := tun.links[len(tun.links)-1]
				tun.mu.Unlock()
				l.Silent(true)
			}
			now = p.connect()
		case 3: // one of a session to come, and one that goes
			old := p.session
			p.session = wire.NewSessionID()
			now = p.connect()
			p.client.Retire(old, wire.ReasonReplaced)
			p.server.Retire(old, wire.ReasonReplaced)
		}
	}
	x.running.Wait()
	p.wantWell(done)
	waitFor(t, "old carriers are closed", func() bool { return p.client.Stats().Carriers == 1 && p.server.Stats().Carriers == 1 })
}

// The same over QUIC, and from one kind to the other and back.
func TestTransferSurvivesChangesOfKind(t *testing.T) {
	const size, moves = 8 << 20, 12
	at := make(targets, 1)
	p := newPair(t, at, alone)
	app, done := open(t, p.client, benchGrant)
	target := <-at
	var x transfer
	x.run(t, app, target, size)
	now := p.roads[0]
	broken := errors.New("the test breaks it")
	for i := range moves {
		waitFor(t, "the transfer to go on", func() bool { return x.reached((i + 1) * 2 * size / (moves + 2)) })
		old := now
		switch i % 4 {
		case 0, 1: // to QUIC, and to another
			old.client.Abort(broken)
			now = p.connectQUIC()
		case 2: // to QUIC, which is there before
			now = p.connectQUIC()
			old.server.Abort(broken)
		case 3: // TCP is better
			now = p.connect()
			waitFor(t, "the stream to leave QUIC", func() bool {
				p.server.mu.Lock()
				defer p.server.mu.Unlock()
				return len(p.server.links) == 2 && p.server.links[0].streams.Load() == 0
			})
			old.client.Abort(broken)
		}
	}
	x.running.Wait()
	p.wantWell(done)
}

// proven waits until both sides have heard of each other.
func (p *pair) proven() {
	p.t.Helper()
	waitFor(p.t, "the carrier to be proven", func() bool { return p.server.Stats().Received > 0 && p.client.Stats().Received > 0 })
}

// brittle is a connection that breaks, or falls silent, after so many bytes.
type brittle struct {
	net.Conn
	silent bool
	mu     sync.Mutex
	left   int
}

func (b *brittle) Write(p []byte) (int, error) {
	b.mu.Lock()
	n := min(len(p), b.left)
	b.left -= n
	over := b.left == 0
	b.mu.Unlock()
	if n > 0 {
		if m, err := b.Conn.Write(p[:n]); err != nil {
			return m, err
		}
	}
	switch {
	case !over:
		return n, nil
	case b.silent:
		return len(p), nil
	}
	b.Conn.Close()
	return n, io.ErrClosedPipe
}

// Carriers that break at any byte, again and again, under streams in every
// state: in bulk, half closed, and reset by either application.
func TestStreamsSurviveCarriersThatBreakAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	carriers := 0
	fragile := func() (net.Conn, net.Conn) {
		a, b := carriertest.TCP(t)
		mu.Lock()
		defer mu.Unlock()
		if carriers++; carriers > 40 {
			return a, b
		}
		// The handshake alone is some 3 KB.
		silent := carriers%10 == 0
		return &brittle{Conn: a, left: 5000 + rnd.IntN(300_000), silent: silent}, &brittle{Conn: b, left: 5000 + rnd.IntN(300_000), silent: silent}
	}
	at := make(targets, 8)
	lost := make(chan struct{}, 1)
	p := newBarePair(t, at, fragile, func(client, server *Config) {
		alone(client, server)
		trouble := func(s Trouble) {
			if s != Well {
				select {
				case lost <- struct{}{}:
				default:
				}
			}
		}
		client.Trouble, server.Trouble = trouble, trouble
	})
	p.connectSafely()
	ctx, cancel := context.WithCancel(context.Background())
	var recovery sync.WaitGroup
	recovery.Go(func() {
		for {
			select {
			case <-lost:
				p.connectSafely()
			case <-ctx.Done():
				return
			}
		}
	})
	defer recovery.Wait()
	defer cancel()

	var x transfer
	var well []chan outcome
	for i := range 6 {
		app, done := open(t, p.client, benchGrant)
		target := (<-at).(*net.TCPConn)
		switch {
		case i < 3:
			x.run(t, app, target, 2<<20)
			well = append(well, done)
		case i == 3: // one half long before the other
			data := random(1 << 20)
			app.CloseWrite()
			x.running.Go(func() {
				if got, err := io.ReadAll(target); len(got) != 0 || err != nil {
					t.Errorf("the half that ended at once: %d bytes, %v", len(got), err)
				}
				target.Write(data)
				target.Close()
			})
			x.running.Go(func() {
				if got, err := io.ReadAll(app); !bytes.Equal(got, data) || err != nil {
					t.Errorf("the other half: %d bytes of %d, %v", len(got), len(data), err)
				}
			})
			well = append(well, done)
		default: // one breaks in the middle; the other never takes that for an end
			data := random(4 << 20)
			from, to := app, target
			if i == 5 {
				from, to = target, app
			}
			x.running.Go(func() {
				from.Write(data[:1<<20])
				from.SetLinger(0)
				from.Close()
			})
			x.running.Go(func() {
				got, err := io.ReadAll(to)
				if !errors.Is(err, syscall.ECONNRESET) || !bytes.HasPrefix(data, got) {
					t.Errorf("a stream that was reset: %d bytes, the right ones: %v, %v", len(got), bytes.HasPrefix(data, got), err)
				}
				to.Close()
			})
			x.running.Go(func() {
				if o := <-done; o.err == nil {
					t.Error("a stream that was reset ended well")
				}
			})
		}
	}
	x.running.Wait()
	for _, done := range well {
		if o := <-done; o.err != nil {
			t.Errorf("a stream ended with: %v", o.err)
		}
	}
	p.wantNothingLeft()
}

// connectSafely connects unless the tunnel is over; a road that breaks at once
// is tried again.
func (p *pair) connectSafely() {
	for {
		p.mu.Lock()
		n := p.next
		p.next++
		p.mu.Unlock()
		r, err := p.road(context.Background(), n)
		if err != nil {
			continue
		}
		if p.client.Attach(r.client, theWay{}) != nil {
			r.client.Abort(ErrClosed)
		}
		if p.server.Attach(r.server, theWay{}) != nil {
			r.server.Abort(ErrClosed)
		}
		return
	}
}

// The OPEN may be what was lost: nobody knows, so it is said again.
func TestLostOpenIsSaidAgain(t *testing.T) {
	for _, kind := range carriertest.Kinds {
		at := make(targets, 2)
		echo := udpEcho(t)
		opened := make(chan wire.OpenKind, 10)
		var exit handler = func(ctx context.Context, open wire.Open) (net.Conn, error) {
			opened <- open.Kind
			if open.Kind == wire.OpenFlow {
				return dialTo(echo)(ctx, open)
			}
			return at.Open(ctx, nil, open)
		}
		var first *silence
		p := newBarePair(t, exit, func() (net.Conn, net.Conn) {
			a, b := carriertest.TCP(t)
			s := &silence{Conn: a}
			if first == nil {
				first = s
			}
			return s, b
		}, alone)
		old := p.connect()
		p.proven()
		first.mu.Lock()
		first.cut = true
		first.mu.Unlock()
		app, done := open(t, p.client, benchGrant)
		if _, err := app.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		app.CloseWrite()
		f, in := openFlow(t, p.client, []byte("x"))
		f.Send([]byte("y"))
		waitFor(t, "the OPENs to be sent into the void", func() bool { return old.client.Stats().Sent > 250 })
		if kind == wire.CarrierQUIC {
			p.connectQUIC()
		} else {
			p.connect()
		}
		old.a.Close()
		target := <-at
		if got, err := io.ReadAll(target); string(got) != "hello" || err != nil {
			t.Errorf("%v: the target read %q, %v", kind, got, err)
		}
		target.Close()
		if got := <-in.got; string(got) != "x" {
			t.Errorf("%v: the flow's first datagram came back as %q", kind, got)
		}
		f.Close(wire.ReasonIdle)
		<-in.ended
		p.wantWell(done)
		if len(opened) != 2 {
			t.Errorf("%v: %d targets were dialled, want 2", kind, len(opened))
		}
		p.stop()
	}
}

// Streams that nobody reads have their windows full when they move. Nothing is
// lost of that either, and it stays within its bounds.
func TestStalledApplicationsMove(t *testing.T) {
	const size = 2 << 20
	at := make(targets, 1)
	p := newPair(t, at, alone)
	app, done := open(t, p.client, benchGrant)
	target := (<-at).(*net.TCPConn)
	data := random(size)
	var writing sync.WaitGroup
	writing.Go(func() {
		app.Write(data)
		app.CloseWrite()
	})
	full := func() bool {
		before := p.client.Stats().Held
		_, err := p.client.Ping(context.Background())
		return err == nil && before > 0 && p.client.Stats().Held == before
	}
	for range 5 {
		waitFor(t, "the windows to be full", full)
		p.roads[len(p.roads)-1].a.Close()
		p.connect()
	}
	if held := p.server.Stats().Held; held > 17<<20 {
		t.Errorf("%d bytes are held for a stream that nobody reads", held)
	}
	got, err := io.ReadAll(target)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, the right ones: %v, %v", len(got), size, bytes.Equal(got, data), err)
	}
	writing.Wait()
	target.Close()
	p.wantWell(done)
}

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

// A retired carrier is left by both sides, then closed, and its owner told.
func TestRetiredCarriersAreLeftAndClosed(t *testing.T) {
	at := make(targets, 2)
	left := make(chan wire.SessionID, 4)
	var troubles []Trouble
	var mu sync.Mutex
	p := newPair(t, at, func(client, server *Config) {
		alone(client, server)
		client.Left = func(id wire.SessionID, err error) {
			if err != nil {
				t.Errorf("the retired carrier ended with: %v", err)
			}
			left <- id
		}
		client.Trouble = func(s Trouble) {
			mu.Lock()
			defer mu.Unlock()
			troubles = append(troubles, s)
		}
	})
	app, _ := open(t, p.client, benchGrant)
	target := <-at
	defer target.Close()
	old := p.session
	for _, tun := range []*Tunnel{p.client, p.server} {
		tun.Retire(old, wire.ReasonReplaced)
	}
	// There is no other: it stays.
	if _, err := p.client.Ping(context.Background()); err != nil || len(left) != 0 {
		t.Fatalf("the only carrier was left: %v", err)
	}
	p.session = wire.NewSessionID()
	p.connect()
	if got := <-left; got != old {
		t.Errorf("left: %v, want %v", got, old)
	}
	go app.Write([]byte("x"))
	var b [1]byte
	if _, err := io.ReadFull(target, b[:]); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(troubles) != 0 {
		t.Errorf("troubles: %v", troubles)
	}
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

// The better kind of carrier is found and moved to, whatever there was before.
func TestStreamsPreferTCPAndFlowsQUIC(t *testing.T) {
	exit := func(stream, flow net.Addr) handler {
		return func(ctx context.Context, open wire.Open) (net.Conn, error) {
			if open.Kind == wire.OpenFlow {
				return dialTo(flow)(ctx, open)
			}
			return dialTo(stream)(ctx, open)
		}
	}(service(t, echo), udpEcho(t))
	p := newBarePair(t, exit, overTCP(t), alone)
	quic := p.connectQUIC()
	app, done := open(t, p.client, benchGrant)
	bounce := func() {
		t.Helper()
		app.Write([]byte("x"))
		var b [1]byte
		if _, err := io.ReadFull(app, b[:]); err != nil {
			t.Fatal(err)
		}
	}
	streams := func(tun *Tunnel, kind wire.CarrierKind) (n int32) {
		tun.mu.Lock()
		defer tun.mu.Unlock()
		for _, l := range tun.links {
			if l.conn.Kind() == kind {
				n += l.streams.Load()
			}
		}
		return n
	}
	bounce()
	f, in := openFlow(t, p.client, []byte("a"))
	<-in.got
	if got := streams(p.client, wire.CarrierQUIC); got != 1 {
		t.Fatalf("%d streams on QUIC, want one where there is nothing else", got)
	}
	tcp := p.connect()
	waitFor(t, "the stream to move to TCP", func() bool {
		return streams(p.client, wire.CarrierTCP) == 1 && streams(p.server, wire.CarrierTCP) == 1
	})
	bounce()
	if got := p.client.flowAt.Load().conn.Kind(); got != wire.CarrierQUIC {
		t.Errorf("flows take %v", got)
	}
	tcp.a.Close()
	waitFor(t, "the stream to move to QUIC", func() bool { return streams(p.server, wire.CarrierQUIC) == 1 })
	bounce()
	p.connect()
	quic.client.Abort(errors.New("the test breaks it"))
	bounce()
	waitFor(t, "flows to take TCP", func() bool {
		l, r := p.client.flowAt.Load(), p.server.flowAt.Load()
		return l != nil && l.conn.Kind() == wire.CarrierTCP && r != nil && r.conn.Kind() == wire.CarrierTCP
	})
	if f.Send([]byte("b")); string(<-in.got) != "b" {
		t.Error("the flow does not go on over TCP")
	}
	f.Close(wire.ReasonIdle)
	app.CloseWrite()
	io.Copy(io.Discard, app)
	p.wantWell(done)
}

// A flow's OPEN is said on every carrier until the peer answers, and none of
// its datagrams arrives twice.
func TestFlowOverTwoCarriersDeliversOnce(t *testing.T) {
	goOn := make(chan struct{})
	addr := udpEcho(t)
	opened := make(chan struct{}, 10)
	var exit handler = func(ctx context.Context, open wire.Open) (net.Conn, error) {
		opened <- struct{}{}
		<-goOn
		return dialTo(addr)(ctx, open)
	}
	p := newPair(t, exit, alone)
	f, in := openFlow(t, p.client, []byte{0})
	<-opened
	p.connectQUIC()
	p.connect()
	waitFor(t, "the OPEN to be said on QUIC", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.said != nil && f.said.conn.Kind() == wire.CarrierQUIC
	})
	for i := range byte(10) {
		f.Send([]byte{i + 1})
	}
	close(goOn)
	for i := range byte(11) {
		if got := <-in.got; !bytes.Equal(got, []byte{i}) {
			t.Fatalf("datagram %d came back as %v", i, got)
		}
	}
	if _, err := p.client.Ping(context.Background()); err != nil || len(in.got) != 0 || len(opened) != 0 {
		t.Errorf("%d datagrams and %d OPENs too many, %v", len(in.got), len(opened), err)
	}
	f.Close(wire.ReasonIdle)
	p.wantNothingLeft()
}

// What an applications resets while there is no carrier, the peer is told when
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

// watchedWay tells how often it was blamed.
type watchedWay struct{ lost chan struct{} }

func (w watchedWay) String() string { return "watched" }
func (w watchedWay) Lost()          { w.lost <- struct{}{} }

// A relay that is killed takes its carriers with it, and they were not at fault.
func TestWayIsBlamedOnlyIfItsSessionWorks(t *testing.T) {
	p := newBarePair(t, refuseAll, overTCP(t), alone)
	w := watchedWay{make(chan struct{}, 10)}
	connect := func(way Way) *road {
		t.Helper()
		p.mu.Lock()
		p.next++
		n := p.next
		p.mu.Unlock()
		r, err := p.road(context.Background(), n)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.client.Attach(r.client, way), p.server.Attach(r.server, theWay{})); err != nil {
			t.Fatal(err)
		}
		return r
	}
	old := connect(w)
	p.proven()
	old.client.Abort(errors.New("the test breaks it"))
	waitFor(t, "both tunnels linger", func() bool { return !p.client.Stats().Lingering.IsZero() && !p.server.Stats().Lingering.IsZero() })
	was := p.session
	p.session = wire.NewSessionID()
	connect(theWay{})
	if len(w.lost) != 0 {
		t.Error("the way was blamed, though its session may be gone")
	}
	p.session = was
	connect(theWay{})
	if len(w.lost) != 1 {
		t.Errorf("the way was blamed %d times after another of its session worked", len(w.lost))
	}
	connect(theWay{})
	if len(w.lost) != 1 {
		t.Errorf("the way was blamed %d times for one carrier", len(w.lost))
	}
}
