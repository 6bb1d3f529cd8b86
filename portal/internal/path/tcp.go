package path

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/wire"
)

// packetWay is packet mode: an ordinary connection to the leg's packet port.
// It sends nothing to prove the leg. Connect succeeds when the other portal
// dials too and the relay has answered both.
type packetWay struct {
	*race
	addr   netip.AddrPort
	ahead  bool      // other ways wait for it
	began  time.Time // Dial
	up     time.Time // when Dial succeeded
	failed bool      // Dial has, and not because another way was taken
	conn   *tcpConn  // after Dial
}

func (w *packetWay) String() string         { return PacketPort.String() }
func (w *packetWay) Kind() wire.CarrierKind { return wire.CarrierTCP }

func (w *packetWay) Dial(ctx context.Context) (net.Conn, error) {
	l := w.race.leg
	w.began = time.Now()
	within, cancel := context.WithTimeoutCause(ctx, unheardTime, errUnheard)
	defer cancel()
	conn, err := l.finder.dial(within, l.Relay(), w.addr)
	if err != nil {
		w.failed = ctx.Err() == nil
		return nil, fmt.Errorf("dial relay %q: %w", l.Relay(), err)
	}
	w.up, w.conn = time.Now(), conn
	l.stalled.Store(true)
	return conn.TCPConn, nil
}

func (w *packetWay) Taken() {
	l := w.race.leg
	w.conn.proven()
	l.stalled.Store(false)
	l.take(candidate{mode: PacketPort, addr: w.addr}, w.race.connection)
	l.trust(packetBad, true)
	if w.race.quic != nil {
		l.finder.memory.won(l.pairing(), false)
		w.race.quic.beaten(time.Since(w.began))
	}
}

func (w *packetWay) Lost() {
	w.race.leg.doubt(packetBad, true, "the carrier on it broke at once")
}

func (w *packetWay) Stuck() { w.conn.finder.stuck(w.conn.relay) }

// spliceWay is splice mode, by whichever of its modes connects first. The
// relay joins the connections of both portals by their session and number,
// however each has come: so nothing needs to be agreed on within this way.
type spliceWay struct {
	*race
	number  uint16        // leg.Meeting, unless the race's
	after   *spliceWay    // which this is the resort of; nil: none
	began   time.Time     // Dial
	dialled chan struct{} // closed when Dial is over
	used    *dialed       // then; nil: it failed
}

func (r *race) newSplice(number uint16, after *spliceWay) *spliceWay {
	return &spliceWay{race: r, number: number, after: after, dialled: make(chan struct{})}
}

// String implements Way: after Dial it names the mode that connected.
func (w *spliceWay) String() string {
	switch {
	case w.used != nil:
		return w.used.candidate.mode.String()
	case w.after != nil:
		return "another relay mode"
	}
	return SessionPort.String()
}

// Kind implements Way.
func (w *spliceWay) Kind() wire.CarrierKind { return wire.CarrierTCP }

// Connection implements Way.
func (w *spliceWay) Connection() uint16 { return w.number }

// Dial returns a connection to the relay over which the leg is proven.
func (w *spliceWay) Dial(ctx context.Context) (net.Conn, error) {
	defer close(w.dialled)
	l := w.leg
	w.began = time.Now()
	modes, err := w.modes(ctx)
	if err != nil {
		return nil, err
	}
	at := make([]time.Duration, len(modes))
	for i, c := range modes {
		at[i] = c.at - modes[0].at
	}
	conn, err := eyeballs.RaceAt(ctx, at, modes, l.connect)
	if err != nil {
		return nil, fmt.Errorf("dial relay %q: %w", l.Relay(), err)
	}
	// Only the connection that won proves the leg: a number is joined once.
	p := l.preface(w.number)
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now()) })
	_, err = conn.Write(p.AppendTo(nil, l.session.Secret))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove leg %v to relay %q: %w", p.ID, l.Relay(), err)
	}
	w.used = conn
	return conn.Conn, nil
}

// modes returns what to dial: everything, or, for a resort, the last mode that the
// way before it has not connected by: SharedTLS looks like any other TLS. It waits
// until that is clear.
func (w *spliceWay) modes(ctx context.Context) (list []candidate, err error) {
	all := w.leg.splice
	if w.after == nil {
		return all, nil
	}
	select {
	case <-w.after.dialled:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if w.after.used == nil {
		return nil, fmt.Errorf("dial relay %q in another mode: none has connected", w.leg.Relay())
	}
	was := w.after.used.candidate.mode
	for _, c := range all {
		switch {
		case c.mode == was || len(list) > 0 && c.mode < list[0].mode:
		case len(list) > 0 && c.mode > list[0].mode:
			list = []candidate{c}
		default:
			list = append(list, c)
		}
	}
	return list, nil
}

func (w *spliceWay) Taken() {
	l, took := w.race.leg, time.Since(w.began)
	w.used.tcp.proven()
	l.take(w.used.candidate, w.number)
	// Where it is the only mode, or the first of those that all sessions share, nothing was shut.
	mode := w.used.candidate.mode
	if mode == SessionPort || slices.ContainsFunc(l.splice, func(c candidate) bool { return c.mode < mode }) {
		l.finder.memory.rememberSplice(l.Relay(), mode)
	}
	if w.race.packet != nil {
		w.race.packet.beaten(took)
	}
	if w.race.quic != nil {
		l.finder.memory.won(l.pairing(), false)
		w.race.quic.beaten(took)
	}
}

// Lost changes nothing: there is no way that is surer.
func (w *spliceWay) Lost() {}

func (w *spliceWay) Stuck() { w.used.tcp.finder.stuck(w.used.tcp.relay) }

// dialed is a connection and how it was made.
type dialed struct {
	net.Conn
	candidate candidate
	tcp       *tcpConn // below TLS
}

func (l *Leg) connect(ctx context.Context, c candidate) (*dialed, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, unheardTime, errUnheard)
	defer cancel()
	conn, err := l.finder.dial(ctx, l.Relay(), c.addr)
	if err != nil {
		return nil, err
	}
	if c.mode != SharedTLS {
		return &dialed{conn.TCPConn, c, conn}, nil
	}
	relay := identity.Expect(identity.Relay, l.Relay())
	secure := record.Client(conn.over, l.finder.Credentials.ClientTLS(identity.ProtocolRelay, relay))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove relay at %s: %w", c.addr, err)
	}
	return &dialed{secure, c, conn}, nil
}

// stuck has the next connections to this relay, in this network, use segments
// that pass nearly everywhere: it seems that something on the way drops longer
// packets and does not say so (RFC 2923 section 2.1). If a carrier comes up with
// them, that is remembered.
func (f *Finder) stuck(relay string) {
	if f.memory.suspect(relay) {
		f.Log.Info("full segments seem to get lost on the way to the relay; the next connections use small ones", "relay", relay)
	}
}

// proven tells that a carrier has come up on a TCP connection.
func (c *tcpConn) proven() {
	c.stop()
	if c.small && c.finder.memory.smallWorked(c.relay) {
		c.finder.Log.Info("full segments get lost on the way to the relay; using small ones for a day", "relay", c.relay)
	}
}

const (
	// maxRetry is how soon after a break of the path TCP finds that it is over.
	maxRetry = 2 * time.Second
	// handshakeTime is how long the handshake on a new connection is watched, and
	// inspectTime how often: a way that is too narrow for its first words is given
	// up long before the handshake would be.
	handshakeTime = 10 * time.Second
	inspectTime   = 250 * time.Millisecond
	// smallSegment is the longest segment, in bytes, where longer ones get lost: it
	// fits into 1,200 bytes of IPv4 or IPv6 with timestamps.
	smallSegment = 1140
)

// tcpConn is a connection as dialled, before TLS.
type tcpConn struct {
	*net.TCPConn
	over   net.Conn // the same, or TLS to a proxy on it
	finder *Finder
	relay  string
	small  bool   // with small segments
	stop   func() // of what watches its handshake
}

// dial makes a connection to a relay. It is closed if full segments get lost on
// it before it was proven.
func (f *Finder) dial(ctx context.Context, relay string, addr netip.AddrPort) (*tcpConn, error) {
	c := &tcpConn{finder: f, relay: relay, small: f.memory.small(relay), stop: func() {}}
	// The carrier keeps the connection alive itself.
	d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, socket syscall.RawConn) error {
		if c.small {
			if err := limitSegments(socket, smallSegment); err != nil {
				return err
			}
		}
		return retrySoon(socket, maxRetry)
	}}
	over, err := f.Proxy.DialContext(ctx, &d, addr.String())
	if err != nil {
		return nil, err
	}
	f.heard(relay)
	raw := over
	if secure, ok := over.(*tls.Conn); ok {
		raw = secure.NetConn()
	}
	c.TCPConn, c.over = raw.(*net.TCPConn), over
	f.follow(c.TCPConn)
	// ctx ends with the race of the modes, which this connection may have won: the
	// handshake with the other portal only begins then.
	ctx, c.stop = context.WithTimeout(context.WithoutCancel(ctx), handshakeTime)
	if c.small {
		c.stop() // nothing smaller is left to try
	} else {
		f.tasks.Go(func() { inspect(ctx, c.TCPConn, func() { f.stuck(relay) }) })
	}
	return c, nil
}

// inspect watches the handshake on a connection: it is closed where full segments get lost.
func inspect(ctx context.Context, conn *net.TCPConn, stuck func()) {
	tick := time.NewTicker(inspectTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lost, err := swallowed(conn)
		if lost {
			stuck()
			_ = conn.SetLinger(0) // an ordinary end would wait behind what gets lost
			conn.Close()
		}
		if lost || err != nil {
			return
		}
	}
}
