package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/wire"
)

// secure makes what one handshake is made with.
func (d *Dialer[In, Out]) secure() (*tls.Config, *identity.Early) {
	return d.Credentials.EarlyTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
}

// greet is the dialling side's half of the greeting, over TCP.
func (d *Dialer[In, Out]) greet(ctx context.Context, raw net.Conn) (*Conn[In, Out], wire.Welcome, error) {
	defer deadline(ctx, raw)()
	cfg, early := d.secure()
	c, err := shake(ctx, raw, cfg)
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	return d.greetOver(c, early)
}

// greetUDP is greet where the handshake is over.
func (d *Dialer[In, Out]) greetUDP(ctx context.Context, c *overquic.Conn, early *identity.Early) (*Conn[In, Out], wire.Welcome, error) {
	defer deadline(ctx, c)()
	return d.greetOver(c, early)
}

// greetOver greets a server that is proven. The caller has set the deadline.
func (d *Dialer[In, Out]) greetOver(c Channel, early *identity.Early) (*Conn[In, Out], wire.Welcome, error) {
	peer, err := identity.PeerOf(c.ConnectionState())
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	hello := wire.Hello{Version: wire.ControlVersion, Software: d.Software}
	conn := newConn[In, Out](newReceiver(c), peer, hello, d.Parse, d.Log)
	switch {
	case overUDP(c): // whose silence is never one, and shows nothing about the network
		conn.quiet = udpQuiet
	case d.Pauses != nil:
		conn.pauses = d.Pauses()
	}
	// In TLS 1.3 the server judges our certificate after we think we are done.
	// So this may fail because it has refused us; what is read next says why.
	_, werr := c.Write(wire.AppendMessage(nil, conn.hello))
	t, body, err := conn.in.next(0)
	var alert *net.OpError
	switch {
	case errors.Is(err, io.EOF):
		return nil, wire.Welcome{}, errors.New("it closed the connection without a word")
	case errors.As(err, &alert) && alert.Op == "remote error":
		if d.Refused != nil {
			d.Refused()
		}
		return nil, wire.Welcome{}, fmt.Errorf("it refused the certificate of %s (%w): its log says why", d.Credentials.ID, err)
	case werr != nil:
		return nil, wire.Welcome{}, werr
	case err != nil:
		return nil, wire.Welcome{}, err
	}
	m, err := d.Parse(t, body)
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	switch m := any(m).(type) {
	case wire.Welcome:
		if m.Version != wire.ControlVersion {
			return nil, wire.Welcome{}, errors.New(wire.VersionText("control", "the server", m.Version, "this program", wire.ControlVersion))
		}
		if err := d.hear(m, early); err != nil {
			return nil, wire.Welcome{}, err
		}
		return conn, m, nil
	case wire.Goodbye:
		return nil, wire.Welcome{}, &Goodbye{Reason: m.Reason, Text: m.Text}
	}
	return nil, wire.Welcome{}, fmt.Errorf("server sent a message of type %d before its welcome", t)
}

// hear takes the time that the server tells.
func (d *Dialer[In, Out]) hear(m wire.Welcome, early *identity.Early) error {
	told := time.Unix(int64(m.Time), 0).UTC()
	believe, err := early.Confirm(told)
	switch {
	case err != nil:
		return fmt.Errorf("the server says that it is %s, when its own certificate is not valid: its clock is wrong, or ours is (%s): %w",
			told.Format(time.RFC3339), d.Credentials.Now().UTC().Format(time.RFC3339), err)
	case !believe:
		d.Log.Warn("the server's clock is wrong: its certificate is not valid at the time that it tells", "told", told)
	case d.Told != nil:
		d.Told(told)
	}
	return nil
}

// Accepted is a connection whose peer is proven and has said Hello, before it
// is welcomed: its role decides which messages follow.
type Accepted struct {
	Peer  identity.Peer
	Hello wire.Hello
	// Presented is what the peer proved itself with, leaf first.
	Presented []*x509.Certificate

	in *receiver
}

// Accept is the server's half of the greeting on a connection that came in.
// cfg is made by ServerTLS with ProtocolControl. The caller closes raw if
// Accept fails.
func Accept(ctx context.Context, raw net.Conn, cfg *tls.Config) (*Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	c, err := Handshake(ctx, raw, cfg)
	if err != nil {
		return nil, err
	}
	return Greeted(ctx, c)
}

// Handshake is the first half of Accept, for a server that takes connections of more
// than one protocol.
func Handshake(ctx context.Context, raw net.Conn, cfg *tls.Config) (*record.Conn, error) {
	defer deadline(ctx, raw)()
	c := record.Server(raw, cfg)
	// It needs 16 KB of stack, which go with a goroutine of its own: the caller's may
	// serve this connection for days.
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	return c, <-done
}

// Greeted is the second half of Accept: it waits for the Hello of a peer whose
// handshake is over. The caller closes the connection if it fails.
func Greeted(ctx context.Context, c Channel) (*Accepted, error) {
	defer deadline(ctx, c.NetConn())()
	if s, ok := c.NetConn().(syscall.Conn); ok {
		if socket, err := s.SyscallConn(); err == nil {
			retrySoon(socket)
		}
	}
	state := c.ConnectionState()
	peer, err := identity.PeerOf(state)
	if err != nil {
		return nil, err
	}
	a := &Accepted{Peer: peer, Presented: state.PeerCertificates, in: newReceiver(c)}
	a.Hello, err = readHello(a.in)
	if errors.Is(err, wire.ErrMalformed) {
		a.Refuse(wire.ReasonProtocol, err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("hello of %s: %w", peer.ID, err)
	}
	if a.Hello.Version < wire.ControlVersion {
		text := wire.VersionText("control", "the server", wire.ControlVersion, string(peer.ID.Role)+" "+peer.ID.Name, a.Hello.Version)
		a.Refuse(wire.ReasonVersion, text)
		return nil, errors.New(text)
	}
	return a, nil
}

// readHello takes the first message.
func readHello(in *receiver) (wire.Hello, error) {
	t, body, err := in.next(0)
	if err != nil {
		return wire.Hello{}, err
	}
	if t != wire.TypeHello {
		return wire.Hello{}, fmt.Errorf("%w: a message of type %d came first", wire.ErrMalformed, t)
	}
	return wire.ParseHello(body)
}

// Refuse says Goodbye to a peer that is proven but not wanted, and closes.
func (a *Accepted) Refuse(reason wire.Reason, text string) {
	c := a.in.source.Channel
	c.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	c.Write(wire.AppendMessage(nil, wire.Goodbye{Reason: reason, Text: text}))
	c.NetConn().Close()
}

// WelcomePortal welcomes an accepted portal: the first message it receives.
func WelcomePortal(a *Accepted, w wire.Welcome, log *slog.Logger) *Conn[wire.FromPortal, wire.ToPortal] {
	c := welcome[wire.FromPortal, wire.ToPortal](a, w, portalRate, wire.ParseFromPortal, log)
	c.quiet = portalQuiet
	return c
}

// WelcomeRelay welcomes an accepted relay.
func WelcomeRelay(a *Accepted, w wire.Welcome, log *slog.Logger) *Conn[wire.FromRelay, wire.ToRelay] {
	return welcome[wire.FromRelay, wire.ToRelay](a, w, relayRate, wire.ParseFromRelay, log)
}

func welcome[In, Out wire.Message](a *Accepted, w wire.Welcome, rate float64, parse func(wire.Type, []byte) (In, error), log *slog.Logger) *Conn[In, Out] {
	c := newConn[In, Out](a.in, a.Peer, a.Hello, parse, log)
	c.rate = rate
	c.enqueue(w)
	return c
}

// deadline lets ctx cut reads and writes on c short. The function it returns
// takes the limit off again.
func deadline(ctx context.Context, c net.Conn) func() {
	if t, ok := ctx.Deadline(); ok {
		c.SetDeadline(t)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			c.SetDeadline(time.Time{})
		}
	}
}
