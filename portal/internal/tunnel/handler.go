package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/netport/netport/proto/wire"
)

// From is where an OPEN came from.
type From struct {
	Peer   *x509.Certificate // the leaf that TLS proved on its carrier
	Direct bool              // the carrier goes by no relay
}

// Handler decides about what the peer opens. It is the only way for a peer to
// make this portal dial: a Handler that refuses everything makes a tunnel
// that can only be used in the other direction.
type Handler interface {
	// Open checks the grant and dials its target. It runs on a goroutine of
	// its own and may take its time; ctx ends when the peer gives up, the
	// grant is cut or the tunnel ends, and when what was opened is over.
	//
	// open.Signed holds the grant if the peer ever sent it whole on
	// this tunnel, else it is empty; open.Data is always empty: the tunnel
	// writes the data itself, after whatever Open wrote to the connection.
	//
	// For OpenStream it returns a connection of which the tunnel takes
	// ownership. CloseWrite is called on it if it has that method, and so is
	// SetLinger: 0 from the beginning, so that it is reset whatever ends the
	// stream, and -1 before Close when that, or a probe, ended cleanly. For OpenFlow it
	// returns a connection that keeps datagrams apart, such as a connected
	// *net.UDPConn; the flow ends when Read fails, so an idle timeout is
	// the read deadline that the Handler's connection keeps. For OpenProbe
	// it returns the connection to the target, which is closed at once.
	//
	// A refusal is returned as Refuse makes it; any other error reaches the
	// peer as ReasonInternal without its text.
	Open(ctx context.Context, from From, open wire.Open) (net.Conn, error)
}

// EndError says why a stream, a flow, a probe or a tunnel was refused or
// ended before its time, and which portal said so.
type EndError struct {
	Peer   bool // the peer said it; else this portal did
	Reason wire.Reason
	Text   string // detail for people; the peer's when Peer
}

func (e *EndError) Error() string {
	who := "this portal said"
	if e.Peer {
		who = "the peer said"
	}
	if e.Text == "" {
		return fmt.Sprintf("%s: %v", who, e.Reason)
	}
	return fmt.Sprintf("%s: %v: %q", who, e.Reason, e.Text)
}

// Refuse returns the error by which a Handler refuses with a reason. The text
// is told to the peer: name nothing that the peer may not know.
func Refuse(reason wire.Reason, format string, args ...any) error {
	return &EndError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// ErrClosed is returned when the tunnel is closing or closed before anything
// was opened on it: what was to be opened is untouched, and the caller may try
// another tunnel.
var ErrClosed = errors.New("the tunnel is closed")
