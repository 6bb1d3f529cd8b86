package packet

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// maxWaiting is how many connections may wait at an Endpoint to be accepted.
const maxWaiting = 4

// ErrClosed is the error of Accept when the Endpoint was closed.
var ErrClosed = errors.New("the UDP leg was closed")

// Endpoint is a relay's address and port, as one session uses it, or another
// portal's, as one tunnel does. Its methods are safe for concurrent use.
type Endpoint struct {
	*Inbox
	shared  bool // the Inbox is closed by its owner
	sockets *Sockets
	line    *line
	remote  netip.AddrPort
	owner   Owner // nil: a direct Endpoint
	gone    sync.Once

	heard, sent atomic.Int64 // now of the last packet of QUIC
	used        atomic.Bool  // Dial or Expect was called: QUIC is taken

	expected atomic.Pointer[expectation]
}

// Inbox is where connections wait that the other side has dialled, until somebody
// accepts them. Its methods are safe for concurrent use.
type Inbox struct {
	waiting chan *quic.Conn
	mu      sync.Mutex // guards closing against deliver
	closed  chan struct{}
}

// NewInbox returns an Inbox for direct Endpoints. It must be closed.
func NewInbox() *Inbox {
	return &Inbox{waiting: make(chan *quic.Conn, maxWaiting), closed: make(chan struct{})}
}

// expectation is how connections that the other side dials are taken.
type expectation struct {
	tls  *tls.Config
	quic *quic.Config
}

func newEndpoint(s *Sockets, l *line, remote netip.AddrPort, owner Owner, inbox *Inbox) *Endpoint {
	e := &Endpoint{Inbox: inbox, shared: inbox != nil, sockets: s, line: l, remote: remote, owner: owner}
	if inbox == nil {
		e.Inbox = NewInbox()
	}
	e.heard.Store(now())
	e.sent.Store(now())
	return e
}

// Send sends a packet that is not QUIC's there. It may get lost, here or
// on its way.
func (e *Endpoint) Send(packet []byte) { e.line.send(packet, e.remote) }

// Heard returns when the last packet of QUIC came from the other portal, and
// Sent when the last was sent there; before the first, when the Endpoint was
// made.
func (e *Endpoint) Heard() time.Time { return epoch.Add(time.Duration(e.heard.Load())) }

// Sent is described with Heard.
func (e *Endpoint) Sent() time.Time { return epoch.Add(time.Duration(e.sent.Load())) }

// Dial makes a QUIC connection to whoever is bound at the other leg, or to the
// other portal.
func (e *Endpoint) Dial(ctx context.Context, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	e.used.Store(true)
	return e.line.transport.Dial(ctx, net.UDPAddrFromAddrPort(e.remote), secure, config)
}

// Expect has connections taken that come from the other portal, from now on,
// with these configurations. They wait for Accept, a few of them.
func (e *Endpoint) Expect(secure *tls.Config, config *quic.Config) {
	e.expected.Store(&expectation{secure, config})
	e.used.Store(true)
}

// Accept returns the next connection that the other portal has made and that
// is still alive.
func (b *Inbox) Accept(ctx context.Context) (*quic.Conn, error) {
	for {
		select {
		case conn := <-b.waiting:
			if conn.Context().Err() == nil {
				return conn, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-b.closed:
			return nil, ErrClosed
		}
	}
}

// deliver reports whether conn waits for Accept now.
func (b *Inbox) deliver(conn *quic.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return false
	default:
	}
	for {
		select {
		case b.waiting <- conn:
			return true
		default:
		}
		// What waits for long was given up by the other side, most likely.
		select {
		case old := <-b.waiting:
			old.CloseWithError(0, "")
		default:
		}
	}
}

// Close ends Accept, and closes what waits for it.
func (b *Inbox) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	closeOnce(b.closed)
	for {
		select {
		case conn := <-b.waiting:
			conn.CloseWithError(0, "")
		default:
			return
		}
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Close gives the address up, and closes the Inbox unless that is shared. Connections
// that were dialled or accepted must have been closed.
func (e *Endpoint) Close() {
	if !e.shared {
		e.Inbox.Close()
	}
	e.gone.Do(func() { e.sockets.release(e) })
}
