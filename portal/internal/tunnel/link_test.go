package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/wire"
)

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

// When one carrier of TCP falls silent the others may be as narrow: a stream
// takes QUIC until they have shown that they are not, and comes back then.
func TestStreamWaitsOnQUICWhileTCPIsInDoubt(t *testing.T) {
	p := newPair(t, dialTo(service(t, echo)), alone)
	app, done := open(t, p.client, benchGrant)
	first := p.client.flowAt.Load()
	waitFor(t, "the stream to be on TCP", func() bool { return first.streams.Load() == 1 })
	p.connect()
	quic := p.connectQUIC()
	first.Silent(true)
	on := func(c carrier.Conn) int32 {
		p.client.mu.Lock()
		defer p.client.mu.Unlock()
		for _, l := range p.client.links {
			if l.conn == c {
				return l.streams.Load()
			}
		}
		return 0
	}
	waitFor(t, "the stream to take QUIC", func() bool { return on(quic.client) == 1 })
	waitFor(t, "the stream to take the other carrier of TCP", func() bool { return on(p.roads[1].client) == 1 })
	if got := p.client.Stats().Carriers; got != 2 {
		t.Errorf("%d carriers, want the two that answer", got)
	}
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

// watchedWay tells how often it was blamed.
type watchedWay struct{ lost chan struct{} }

func (w watchedWay) String() string { return "watched" }
func (w watchedWay) Lost()          { w.lost <- struct{}{} }
func (w watchedWay) Direct() bool   { return false }

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
