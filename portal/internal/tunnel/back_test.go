package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
)

// The opener may leave QUIC for a carrier that turns out to be dead, and come
// back, before the other side has noticed.
func TestStreamComesBackToQUICUnnoticed(t *testing.T) {
	p := newBarePair(t, dialTo(service(t, echo)), func() (net.Conn, net.Conn) {
		a, b := carriertest.TCP(t)
		return &silence{Conn: a}, b
	}, alone)
	p.connectQUIC()
	app, done := open(t, p.client, benchGrant)
	bounce := func() {
		t.Helper()
		app.Write([]byte("x"))
		if _, err := io.ReadFull(app, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	bounce()
	quic := p.client.flowAt.Load()
	for range 3 {
		r, err := p.road(context.Background(), p.next)
		if err != nil {
			t.Fatal(err)
		}
		p.next++
		s := r.a.(*silence)
		s.mu.Lock()
		s.cut = true
		s.mu.Unlock()
		if err := errors.Join(p.client.Attach(r.client, theWay{}), p.server.Attach(r.server, theWay{})); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the stream to leave QUIC", func() bool { return quic.streams.Load() == 0 })
		r.client.Abort(errors.New("the test breaks it"))
		bounce()
	}
	app.CloseWrite()
	io.Copy(io.Discard, app)
	p.wantWell(done)
}
