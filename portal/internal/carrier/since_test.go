package carrier_test

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
)

// slow is a connection on which nothing is read before the test says so, and which tells
// of the first write.
type slow struct {
	net.Conn
	wrote func()
	read  chan struct{}
}

func (s *slow) Write(b []byte) (int, error) { s.wrote(); return s.Conn.Write(b) }
func (s *slow) Read(b []byte) (int, error)  { <-s.read; return s.Conn.Read(b) }

// TestCarrierIsAsOldAsItsHandshake: what this portal has shown is the certificate of then,
// however long the rest took.
func TestCarrierIsAsOldAsItsHandshake(t *testing.T) {
	a, b := carriertest.TCP(t)
	cc, sc := carriertest.TLS(t)
	began := make(chan struct{})
	held := &slow{a, sync.OnceFunc(func() { close(began) }), make(chan struct{})}
	var conns [2]carrier.Conn
	var errs [2]error
	var two sync.WaitGroup
	two.Go(func() { conns[0], errs[0] = carrier.OverTCP(t.Context(), held, carrier.Config{Client: true, TLS: cc}) })
	two.Go(func() { conns[1], errs[1] = carrier.OverTCP(t.Context(), b, carrier.Config{TLS: sc}) })
	<-began
	renewed := time.Now() // the certificate of this portal
	close(held.read)
	two.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	defer conns[0].Abort(nil)
	defer conns[1].Abort(nil)
	if since := conns[0].Since(); since.IsZero() || since.After(renewed) {
		t.Errorf("it is of %v, and its handshake began before %v", since, renewed)
	}

	// QUIC has shaken hands already: who did that says when.
	q, p := carriertest.QUIC(t, cc, sc)
	defer p.CloseWithError(0, "")
	c, err := carrier.OverQUIC(t.Context(), q, carrier.Config{Client: true, Since: renewed})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort(nil)
	if !c.Since().Equal(renewed) {
		t.Errorf("over QUIC it is of %v", c.Since())
	}
}
