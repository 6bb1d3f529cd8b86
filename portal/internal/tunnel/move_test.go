package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
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
			return at.Open(ctx, From{}, open)
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
		// The echo may have left on the carrier that was about to die: a datagram may
		// be lost, so its application says it again.
		again := time.NewTicker(100 * time.Millisecond)
		for heard := false; !heard; {
			select {
			case got := <-in.got:
				heard = true
				if string(got) != "x" && string(got) != "y" {
					t.Errorf("%v: a datagram of the flow came back as %q", kind, got)
				}
			case <-again.C:
				f.Send([]byte("x"))
			}
		}
		again.Stop()
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
