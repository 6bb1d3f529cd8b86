package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// offer offers one end of a connection, in which the application has said hello
// already, and returns the application's end and how it came out.
func offer(ctx context.Context, t *testing.T, tun *Tunnel) (app, offered *net.TCPConn, taken chan bool, ended chan error) {
	t.Helper()
	app, offered = carriertest.TCP(t)
	if _, err := io.WriteString(app, "hello"); err != nil {
		t.Fatal(err)
	}
	taken, ended = make(chan bool, 1), make(chan error, 1)
	go func() {
		was := false
		_, err := tun.OfferStream(ctx, benchGrant, []byte("grant"), netip.AddrPort{}, offered, func() { was = true })
		taken <- was
		ended <- err
	}()
	return app, offered, taken, ended
}

// TestOfferTakesNothingBeforeTheTargetIsThere: what a refused connection has said
// is there for another tunnel, and the application has noticed nothing.
func TestOfferTakesNothingBeforeTheTargetIsThere(t *testing.T) {
	refusing := newPair(t, handler(func(context.Context, wire.Open) (net.Conn, error) {
		return nil, Refuse(wire.ReasonTargetRefused, "")
	}), nil)
	app, offered, taken, ended := offer(t.Context(), t, refusing.client)
	err := <-ended
	var end *EndError
	if <-taken || !errors.As(err, &end) || !end.Peer || end.Reason != wire.ReasonTargetRefused {
		t.Fatalf("refused: %v", err)
	}
	serving := newPair(t, dialTo(service(t, echo)), nil)
	go serving.client.OfferStream(t.Context(), benchGrant, []byte("grant"), netip.AddrPort{}, offered, func() {})
	app.CloseWrite()
	if b, err := io.ReadAll(app); string(b) != "hello" || err != nil {
		t.Errorf("by the second tunnel: %q, %v", b, err)
	}
}

// TestOfferGoesOnLikeAnyStream: the target speaks first, at once, and both halves
// end.
func TestOfferGoesOnLikeAnyStream(t *testing.T) {
	at := service(t, func(c *net.TCPConn) {
		io.WriteString(c, "welcome ")
		io.Copy(c, c)
	})
	p := newPair(t, dialTo(at), nil)
	app, _, taken, ended := offer(t.Context(), t, p.client)
	app.CloseWrite()
	if b, err := io.ReadAll(app); string(b) != "welcome hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if !<-taken || <-ended != nil {
		t.Error("not taken")
	}
	waitFor(t, "the stream's end", func() bool { return p.client.Stats().Streams == 0 && p.server.Stats().Streams == 0 })
}

// TestOfferIsTakenBack: whoever waits no more has its connection, and the exit's
// dial ends.
func TestOfferIsTakenBack(t *testing.T) {
	asked, over := make(chan struct{}), make(chan struct{})
	p := newPair(t, handler(func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		Begun(ctx)
		close(asked)
		<-ctx.Done()
		close(over)
		return nil, ctx.Err()
	}), nil)
	why := errors.New("another is quicker")
	ctx, cancel := context.WithCancelCause(t.Context())
	app, offered, taken, ended := offer(ctx, t, p.client)
	<-asked
	cancel(why)
	if err := <-ended; <-taken || !errors.Is(err, why) {
		t.Errorf("taken back: %v", err)
	}
	<-over
	b := make([]byte, 5)
	offered.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(offered, b); string(b) != "hello" || err != nil {
		t.Errorf("what it has said: %q, %v", b, err)
	}
	app.Close()
	p.stop()
}
