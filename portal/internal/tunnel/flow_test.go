package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/netport/netport/proto/wire"
)

// inbox is a Sink that keeps what it gets.
type inbox struct {
	got   chan []byte
	ended chan error
}

func newInbox() *inbox { return &inbox{make(chan []byte, 1000), make(chan error, 2)} }

func (i *inbox) Datagram(b []byte) { i.got <- bytes.Clone(b) }
func (i *inbox) Ended(err error)   { i.ended <- err }

// udpEcho returns the address of a UDP service that sends back what it gets.
func udpEcho(t testing.TB) net.Addr {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c.LocalAddr()
}

func openFlow(t testing.TB, tun *Tunnel, first []byte) (*Flow, *inbox) {
	t.Helper()
	in := newInbox()
	f, err := tun.OpenFlow(context.Background(), benchGrant, []byte("grant"), netip.AddrPort{}, first, in)
	if err != nil {
		t.Fatal(err)
	}
	return f, in
}

func TestDatagramsKeepBoundariesAndSizes(t *testing.T) {
	p := newPair(t, dialTo(udpEcho(t)), nil)
	f, in := openFlow(t, p.client, []byte("first"))
	if got := <-in.got; string(got) != "first" {
		t.Fatalf("first datagram came back as %q", got)
	}
	for _, n := range []int{0, 1, 1400, 9000, wire.MaxDatagram} {
		want := random(n)
		if !f.Send(want) {
			t.Fatalf("a datagram of %d bytes was dropped", n)
		}
		if got := <-in.got; !bytes.Equal(got, want) {
			t.Errorf("a datagram of %d bytes came back with %d", n, len(got))
		}
	}
	if f.Send(make([]byte, wire.MaxDatagram+1)) {
		t.Error("a datagram that is too long was taken")
	}
	if got := p.client.Stats(); got.Drops != 1 || got.Flows != 1 {
		t.Errorf("drops %d, flows %d; want 1, 1", got.Drops, got.Flows)
	}
	f.Close(wire.ReasonIdle)
	wantEnd(t, <-in.ended, EndError{Reason: wire.ReasonIdle})
	if f.Send([]byte("x")) {
		t.Error("a datagram was taken after the end")
	}
	waitFor(t, "both sides forget the flow", func() bool {
		return p.client.Stats().Flows == 0 && p.server.Stats().Flows == 0
	})
	if len(in.got) != 0 || len(in.ended) != 0 {
		t.Errorf("%d datagrams and %d ends too many", len(in.got), len(in.ended))
	}
	waitFor(t, "nothing is held", func() bool { return p.server.Stats().Held == 0 })
}

func TestFirstDatagramMayBeEmpty(t *testing.T) {
	p := newPair(t, dialTo(udpEcho(t)), nil)
	_, in := openFlow(t, p.client, nil)
	if got := <-in.got; len(got) != 0 {
		t.Errorf("an empty datagram came back as %q", got)
	}
}

// What comes while the exit opens its socket waits, but not without bound.
func TestDatagramsWaitForTheSocketWithinBounds(t *testing.T) {
	addr := udpEcho(t)
	goOn := make(chan struct{})
	var exit handler = func(ctx context.Context, open wire.Open) (net.Conn, error) {
		<-goOn
		return dialTo(addr)(ctx, open)
	}
	p := newPair(t, exit, nil)
	f, in := openFlow(t, p.client, []byte{0})
	for i := range byte(maxHeld + 4) {
		f.Send([]byte{i + 1})
	}
	waitFor(t, "the exit drops what is too much", func() bool { return p.server.Stats().Drops == 5 })
	close(goOn)
	for i := range byte(maxHeld) {
		if got := <-in.got; !bytes.Equal(got, []byte{i}) {
			t.Fatalf("datagram %d came back as %v", i, got)
		}
	}
	if len(in.got) != 0 {
		t.Errorf("%d datagrams too many", len(in.got))
	}
}

func TestRefusedFlowEnds(t *testing.T) {
	p := newPair(t, refuseAll, nil)
	_, in := openFlow(t, p.client, []byte("x"))
	wantEnd(t, <-in.ended, EndError{Peer: true, Reason: wire.ReasonNotGranted})
	waitFor(t, "both sides forget the flow", func() bool {
		return p.client.Stats().Flows == 0 && p.server.Stats().Flows == 0
	})
}

func TestFlowEndsWhenTheExitsSocketDoes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want wire.Reason
	}{
		{os.ErrDeadlineExceeded, wire.ReasonIdle},
		{errors.New("gone"), wire.ReasonTargetUnreached},
	} {
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) {
			a, b := net.Pipe()
			b.Close()
			return failing{a, test.err}, nil
		}
		p := newPair(t, exit, nil)
		_, in := openFlow(t, p.client, []byte("x"))
		wantEnd(t, <-in.ended, EndError{Peer: true, Reason: test.want})
	}
}

// failing is a connection whose Read fails.
type failing struct {
	net.Conn
	err error
}

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCutEndsFlows(t *testing.T) {
	p := newPair(t, dialTo(udpEcho(t)), nil)
	_, in := openFlow(t, p.client, []byte("x"))
	<-in.got
	if got := p.server.CutGrant(benchGrant, wire.ReasonGrantRemoved); got != 1 {
		t.Errorf("cut: %d, want 1", got)
	}
	wantEnd(t, <-in.ended, EndError{Peer: true, Reason: wire.ReasonGrantRemoved})
}

func TestProbeTellsWhetherTheTargetCanBeReached(t *testing.T) {
	target := service(t, echo)
	p := newPair(t, dialTo(target), nil)
	text, err := p.client.Probe(context.Background(), benchGrant, []byte("grant"))
	if err != nil || text != target.String() {
		t.Errorf("probe: %q, %v; want %v", text, err, target)
	}
	p = newPair(t, refuseAll, nil)
	_, err = p.client.Probe(context.Background(), benchGrant, []byte("grant"))
	wantEnd(t, err, EndError{Peer: true, Reason: wire.ReasonNotGranted})
}

// lingering is a target whose connection is a reset on close until somebody
// says otherwise, as those of the exit are.
type lingering struct{ targets }

func (l lingering) Open(ctx context.Context, from From, open wire.Open) (net.Conn, error) {
	c, err := l.targets.Open(ctx, from, open)
	if err == nil {
		err = c.(*net.TCPConn).SetLinger(0)
	}
	return c, err
}

func TestProbeIsAnOrdinaryEndToItsTarget(t *testing.T) {
	at := make(targets, 1)
	p := newPair(t, lingering{at}, nil)
	if _, err := p.client.Probe(context.Background(), benchGrant, []byte("grant")); err != nil {
		t.Fatal(err)
	}
	target := <-at
	defer target.Close()
	if _, err := target.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the target reads %v, want its end", err)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	p := newPair(t, dialsForEver, nil)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		// The probe stands at the exit when it is given up.
		for p.server.Stats().Flows == 0 && ctx.Err() == nil {
			p.client.Ping(ctx)
		}
		cancel()
	}()
	if _, err := p.client.Probe(ctx, benchGrant, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("probe: %v, want canceled", err)
	}
	waitFor(t, "both sides forget the probe", func() bool {
		return p.client.Stats().Flows == 0 && p.server.Stats().Flows == 0
	})
}
