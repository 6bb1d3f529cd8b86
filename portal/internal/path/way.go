package path

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/wire"
)

// Way is one way to the other portal for one carrier. Both portals must take
// the same, and neither knows which one works for the other: so they try
// several, and find out end to end. It is a StreamWay or a PacketWay.
type Way interface {
	// String names the way as status does.
	String() string
	// Kind says what a carrier on it runs over.
	Kind() wire.CarrierKind
	// Connection is the number of a carrier on it in the session.
	Connection() uint16
	// Taken tells that a carrier has come up on the way, and that the other
	// ways of the same carrier were given up: their Dial or Quic has returned.
	Taken()
	// Lost tells that the carrier broke soon after it had come up.
	Lost()
	// Direct reports whether the way goes by no relay.
	Direct() bool
}

// StreamWay is a Way of TCP.
type StreamWay interface {
	Way
	// Dial returns a connection: what is written to it reaches the other
	// portal once that has dialled the same way. It is called once.
	Dial(ctx context.Context) (net.Conn, error)
	// Stuck tells that the carrier fell silent while segments of full size got
	// lost again and again.
	Stuck()
}

// PacketWay is a Way of UDP.
type PacketWay interface {
	Way
	// Quic returns a QUIC connection with the other portal whose handshake is
	// complete: the TLS client makes one, the TLS server waits for one. The
	// server may call it again and again, and from several goroutines; each call
	// gets a connection of its own. The caller closes the connection; while one
	// lives, or is waited for, the leg is kept open.
	Quic(ctx context.Context, client bool, secure *tls.Config, config *quic.Config) (*quic.Conn, error)
}

// race is the ways of one carrier. Once one is taken it shows what that says
// about the others.
type race struct {
	leg        *Leg
	connection uint16
	packet     *packetWay // nil: none; so for the next two
	quic       *quicWay
	splice     *spliceWay
}

// Connection implements Way for those that all have the race's number.
func (r *race) Connection() uint16 { return r.connection }

// Direct implements Way: all of them go by the relay.
func (r *race) Direct() bool { return false }

// unheardTime is how long a way waits to hear anything from the relay. It is more
// than two lost packets and a round trip by satellite take.
const unheardTime = 3 * time.Second

var errUnheard = fmt.Errorf("nothing was heard from it within %v", unheardTime)

// unfair is how much longer than the winner a way must have had, to have lost
// for a reason.
const unfair = 150 * time.Millisecond

// beaten tells that splice mode or QUIC was quicker than packet mode, and how
// long that took in all. It speaks against packet mode only if that was ahead and
// has not connected all the same, or has been connected for longer than the other
// way took to connect and to carry: otherwise it may have lost by chance.
func (w *packetWay) beaten(took time.Duration) {
	l := w.race.leg
	l.stalled.Store(false)
	switch connected := !w.up.IsZero(); {
	case w.ahead && !connected && (w.failed || time.Since(w.began) >= took+unfair):
		l.doubt(packetBad, false, "it did not connect before another way carried")
	case w.ahead && connected && time.Since(w.up) > took:
		l.doubt(packetBad, true, "it connected, and another way carried first")
	case connected:
		l.trust(packetBad, false)
	}
}

// beaten tells that a way of TCP was quicker, and how long that took in all.
func (w *quicWay) beaten(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.up.IsZero():
		w.race.leg.trust(quicBad, false)
	case !w.began.IsZero() && time.Since(w.began) >= took+unfair:
		w.race.leg.doubt(quicBad, false, "it did not connect before another way carried")
	}
}
