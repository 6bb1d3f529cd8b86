package daemon

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"

	"github.com/netport/netport/proto/handover"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
)

// errForRelay ends the handshake on a connection that is for a relay: inside TLS, or bare.
var errForRelay = errors.New("it is for a relay, and is handed over")

// opening is a connection of which it is not known yet whom it is for: what is read of it
// goes with it if it is for a relay. It is known by what comes first, a preface; or by the
// protocol that a TLS client asks for, and by that alone. All others go on as they came.
type opening struct {
	*net.TCPConn

	// Owned by the handshake, and constant after it.
	head  []byte // what was read
	known bool   // that it is not for a relay; there is no head any more
	relay bool   // it is: nothing is written to it any more
}

// opening returns the connection as one that may be for the relay on this machine; nil:
// there is none, or it cannot be handed over.
func (d *daemon) opening(c net.Conn) *opening {
	tcp, ok := c.(*net.TCPConn)
	if !ok || d.own.cfg.Live().HandOver == "" {
		return nil
	}
	return &opening{TCPConn: tcp}
}

// config returns what the handshake goes by: own, if the client does not ask for a relay.
func (o *opening) config(own *tls.Config) *tls.Config {
	return &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !o.known && slices.Equal(hello.SupportedProtos, []string{identity.ProtocolRelay}) {
			o.relay = true
			return nil, errForRelay
		}
		o.known, o.head = true, nil
		if cfg, err := own.GetConfigForClient(hello); cfg != nil || err != nil {
			return cfg, err
		}
		return own, nil
	}}
}

// Read reads no further than the magic of a preface until that has not come: what follows it
// is the relay's to read.
func (o *opening) Read(b []byte) (int, error) {
	if o.known {
		return o.TCPConn.Read(b)
	}
	if missing := len(leg.Magic) - len(o.head); missing > 0 && len(b) > missing {
		b = b[:missing]
	}
	n, err := o.TCPConn.Read(b)
	o.head = append(o.head, b[:n]...)
	switch {
	case string(o.head) == leg.Magic:
		o.relay = true
		return 0, errForRelay
	case len(o.head) > handover.MaxHead: // no portal greets a relay with so much
		o.known, o.head = true, nil
	}
	return n, err
}

// Write swallows the alert with which crypto/tls gives up a handshake that goes on elsewhere.
func (o *opening) Write(b []byte) (int, error) {
	if o.relay {
		return len(b), nil
	}
	return o.TCPConn.Write(b)
}

// handOver gives the relay a connection that is for it. Its caller closes the server's
// descriptor in any case; where there is no relay that ends the connection.
func (d *daemon) handOver(o *opening) {
	err := handover.Give(d.own.cfg.Live().HandOver, o.TCPConn, o.head)
	switch {
	case err == nil:
		d.handed.Add(1)
	case errors.Is(err, net.ErrClosed):
		d.refused.Add("closed")
	default:
		d.refused.Add("no_relay")
		d.seldom.Warn("connection for the relay on this machine closed: is it running, with this socket as its take_over?", "error", err)
	}
}
