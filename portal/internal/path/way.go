package path

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/netport/netport/portal/internal/eyeballs"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
)

// Way is one way to the other portal for one carrier. Both portals must take
// the same, and neither knows which one works for the other: so they try
// several, and find out end to end.
type Way interface {
	// String names the way as status does.
	String() string
	// Dial returns a connection: what is written to it reaches the other
	// portal once that has dialled the same way. It is called once.
	Dial(ctx context.Context) (net.Conn, error)
	// Taken tells that a carrier has come up on the way, and that the other
	// ways of the same carrier were given up: their Dial has returned.
	Taken()
	// Lost tells that the carrier broke soon after it had come up.
	Lost()
}

// packetWay is packet mode: an ordinary connection to the leg's packet port.
// It sends nothing to prove the leg. Connect succeeds when the other portal
// dials too and the relay has answered both.
type packetWay struct {
	leg        *Leg
	connection uint16
	addr       netip.AddrPort
	ahead      bool      // tried alone for a moment, if there is splice mode too
	up         time.Time // when Dial succeeded
}

func (w *packetWay) String() string { return PacketPort.String() }

func (w *packetWay) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := dial(ctx, w.addr)
	if err != nil {
		return nil, fmt.Errorf("dial relay %q: %w", w.leg.session.Relay.Name, err)
	}
	w.up = time.Now()
	w.leg.stalled.Store(true)
	return conn, nil
}

func (w *packetWay) Taken() {
	w.leg.stalled.Store(false)
	w.leg.take(candidate{PacketPort, w.addr}, w.connection)
	w.leg.trust(true)
}

func (w *packetWay) Lost() { w.leg.doubt(true, "the carrier on it broke at once") }

// beaten tells that splice mode was quicker, and how long it took in all. That
// speaks against packet mode only if it was ahead and has not connected all the
// same, or has been connected for longer than the other way took to connect and
// to carry: otherwise it may have lost by chance.
func (w *packetWay) beaten(took time.Duration) {
	w.leg.stalled.Store(false)
	switch connected := !w.up.IsZero(); {
	case w.ahead && !connected:
		w.leg.doubt(false, "it did not connect before splice mode carried")
	case w.ahead && time.Since(w.up) > took:
		w.leg.doubt(true, "it connected, and splice mode carried first")
	case connected:
		w.leg.trust(false)
	}
}

// spliceWay is splice mode, by whichever of its modes connects first. The
// relay joins the connections of both portals by their session and number,
// however each has come: so nothing needs to be agreed on within this way.
type spliceWay struct {
	leg        *Leg
	connection uint16
	packet     *packetWay // of the same carrier; nil: none
	began      time.Time  // Dial
	used       candidate  // after Dial
}

func (w *spliceWay) String() string { return SessionPort.String() }

// Dial returns a connection to the relay over which the leg is proven.
func (w *spliceWay) Dial(ctx context.Context) (net.Conn, error) {
	l := w.leg
	w.began = time.Now()
	conn, err := eyeballs.Race(ctx, eyeballs.Stagger, l.splice, l.connect)
	if err != nil {
		return nil, fmt.Errorf("dial relay %q: %w", l.session.Relay.Name, err)
	}
	// Only the connection that won proves the leg: a number is joined once.
	id := leg.ID{Session: l.session.ID, Leg: l.session.Leg, Connection: w.connection}
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now()) })
	_, err = conn.Write(leg.NewPreface(id).AppendTo(nil, l.session.Secret))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove leg %v to relay %q: %w", id, l.session.Relay.Name, err)
	}
	w.used = conn.candidate
	l.spliced.Store(&w.used)
	return conn.Conn, nil
}

func (w *spliceWay) Taken() {
	w.leg.take(w.used, w.connection)
	w.leg.finder.memory.rememberSplice(w.leg.session.Relay.Name, w.used.mode)
	if w.packet != nil {
		w.packet.beaten(time.Since(w.began))
	}
}

// Lost changes nothing: there is no way that is surer.
func (w *spliceWay) Lost() {}

// dialed is a connection and how it was made.
type dialed struct {
	net.Conn
	candidate candidate
}

func (l *Leg) connect(ctx context.Context, c candidate) (*dialed, error) {
	conn, err := dial(ctx, c.addr)
	if err != nil {
		return nil, err
	}
	if c.mode != SharedTLS {
		return &dialed{conn, c}, nil
	}
	relay := identity.Expect(identity.Relay, l.session.Relay.Name)
	secure := tls.Client(conn, l.finder.credentials.ClientTLS(identity.ProtocolRelay, relay))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove relay at %s: %w", c.addr, err)
	}
	return &dialed{secure, c}, nil
}

// maxRetry is how soon after a break of the path TCP finds that it is over.
const maxRetry = 2 * time.Second

func dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	// The carrier keeps the connection alive itself.
	d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, socket syscall.RawConn) error { return retrySoon(socket, maxRetry) }}
	return d.DialContext(ctx, "tcp", addr.String())
}
