package carrier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/wire"
)

// closeWait is how long a closing carrier waits for its last frames to leave
// and for the peer to close its side.
const closeWait = time.Second

// helloWait is how long Run waits for the peer's HELLO.
const helloWait = 10 * time.Second

// carrier is what both kinds are made of: who the peer is, HELLO, the frames of
// the carrier itself, and counters.
type carrier struct {
	cfg     Config
	kind    wire.CarrierKind
	chain   []*x509.Certificate // the peer's, leaf first
	binding [32]byte
	send    func(frames []byte)    // Conn.Send
	abort   func(err error)        // Conn.Abort
	still   func(silent bool) bool // is told at each look that finds the peer silent, and of the end of it, and reports whether Stats().Stuck has become true; or nil
	live    liveness
	stats   counters
	greeted bool // AwaitHello has taken the peer's HELLO
}

// counters are what Stats reports.
type counters struct {
	sent, received atomic.Uint64
	dropped        atomic.Uint64
	unknown        atomic.Uint64
}

// bindingLabel is the label of the TLS exporter (RFC 8446, section 7.5) that
// gives a carrier its Binding.
const bindingLabel = "EXPORTER-netport-tunnel"

// prove takes the peer from a finished handshake.
func (c *carrier) prove(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("it sent no certificate")
	}
	c.chain = state.PeerCertificates
	binding, err := state.ExportKeyingMaterial(bindingLabel, nil, len(c.binding))
	if err != nil {
		return err
	}
	copy(c.binding[:], binding)
	return nil
}

// Kind implements Conn.
func (c *carrier) Kind() wire.CarrierKind { return c.kind }

// Client implements Conn.
func (c *carrier) Client() bool { return c.cfg.Client }

// Peer implements Conn.
func (c *carrier) Peer() *x509.Certificate { return c.chain[0] }

// Chain implements Conn.
func (c *carrier) Chain() []*x509.Certificate { return c.chain }

// Since implements Conn.
func (c *carrier) Since() time.Time { return c.cfg.Since }

// Session implements Conn.
func (c *carrier) Session() wire.SessionID { return c.cfg.Session }

// Connection implements Conn.
func (c *carrier) Connection() uint16 { return c.cfg.Connection }

// Binding implements Conn.
func (c *carrier) Binding() [32]byte { return c.binding }

// RTT implements Conn.
func (c *carrier) RTT() time.Duration { return time.Duration(c.live.rtt.Load()) }

// Stats implements Conn.
func (c *carrier) Stats() Stats {
	return Stats{
		RTT:      c.RTT(),
		Sent:     c.stats.sent.Load(),
		Received: c.stats.received.Load(),
		Dropped:  c.stats.dropped.Load(),
		Unknown:  c.stats.unknown.Load(),
	}
}

// hello returns this side's HELLO frame.
func (c *carrier) hello(m wire.TunnelHello) []byte {
	m.Version, m.Session, m.Connection = wire.TunnelVersion, c.cfg.Session, c.cfg.Connection
	return wire.AppendFrame(nil, 0, m)
}

// awaitHello has exchange write what waits and read the peer's HELLO: AwaitHello
// of both kinds.
func (c *carrier) awaitHello(ctx context.Context, exchange func() (wire.TunnelHello, error)) (wire.TunnelHello, error) {
	stop := context.AfterFunc(ctx, func() { c.abort(context.Cause(ctx)) })
	m, err := exchange()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.abort(err)
		return wire.TunnelHello{}, fmt.Errorf("wait for the HELLO of carrier %d: %w", c.cfg.Connection, err)
	}
	c.greeted = true
	return m, nil
}

// checkHello takes the peer's first frame, which must be the right HELLO.
func (c *carrier) checkHello(f wire.FrameHeader, body []byte) (wire.TunnelHello, error) {
	if f.Type != wire.FrameHello {
		return wire.TunnelHello{}, errHelloMissing
	}
	if len(body) >= 2 {
		// A HELLO of another version may have another layout.
		if v := binary.BigEndian.Uint16(body); v != wire.TunnelVersion {
			return wire.TunnelHello{}, errors.New("HELLO: " + wire.VersionText("tunnel", "the peer", v, "this portal", wire.TunnelVersion))
		}
	}
	m, err := wire.ParseTunnelHello(body)
	if err != nil {
		return wire.TunnelHello{}, fmt.Errorf("HELLO: %w", err)
	}
	if m.Session != c.cfg.Session || m.Connection != c.cfg.Connection || f.Stream != 0 {
		return wire.TunnelHello{}, fmt.Errorf("HELLO names session %v, carrier %d; this is session %v, carrier %d", m.Session, m.Connection, c.cfg.Session, c.cfg.Connection)
	}
	return m, nil
}

// hurry aborts the carrier unless the peer's HELLO comes soon; stop has it wait no
// more.
func (c *carrier) hurry() (stop func() bool) {
	return time.AfterFunc(helloWait, func() { c.abort(errHelloLate) }).Stop
}

// take handles a frame that came: the carrier's own here, others by h.
func (c *carrier) take(f wire.FrameHeader, body []byte, h Handler) error {
	switch f.Type {
	case wire.FrameHello:
		return fmt.Errorf("%w: HELLO twice", wire.ErrMalformed)
	case wire.FramePing:
		return c.answer(f, body)
	case wire.FramePong:
		return c.heardPong(f, body)
	case wire.FramePad:
		if _, err := wire.ParsePad(body); err != nil || f.Stream != 0 {
			return fmt.Errorf("PAD: %w", wire.ErrMalformed)
		}
		return nil
	case wire.FrameOpen, wire.FrameData, wire.FrameAck, wire.FrameFin, wire.FrameReset, wire.FrameResume,
		wire.FrameDatagram, wire.FrameCarrier, wire.FrameClose, wire.FrameCandidates:
		c.live.busy.Store(true)
		return h.Frame(f, body)
	}
	c.stats.unknown.Add(1)
	return nil
}

// counted notes that a frame has come and was handled.
func (c *carrier) counted(f wire.FrameHeader) {
	c.stats.received.Add(uint64(wire.FrameHeaderLen + f.Length))
	c.live.heard.set()
}

func (c *carrier) answer(f wire.FrameHeader, body []byte) error {
	m, err := wire.ParseTunnelPing(body)
	if err != nil || f.Stream != 0 {
		return fmt.Errorf("PING: %w", wire.ErrMalformed)
	}
	c.live.asked.set()
	c.send(wire.AppendFrame(nil, 0, wire.TunnelPong(m)))
	return nil
}

func (c *carrier) heardPong(f wire.FrameHeader, body []byte) error {
	m, err := wire.ParseTunnelPong(body)
	if err != nil || f.Stream != 0 {
		return fmt.Errorf("PONG: %w", wire.ErrMalformed)
	}
	c.live.pong(m, time.Now())
	return nil
}
