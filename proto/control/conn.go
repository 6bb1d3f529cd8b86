package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

const (
	// HandshakeTimeout bounds TLS handshake, Hello and Welcome together.
	HandshakeTimeout = 10 * time.Second
	// KeepAlive is the silence after which a Ping is sent, where nothing is
	// known of the network (see Pauses): well below the 2 hours that RFC 5382 asks
	// of NATs and the 5 minutes that many keep.
	KeepAlive = 4 * time.Minute
	// portalQuiet is the silence after which a server asks a portal: longer than
	// a portal keeps it, so that one side pays for both.
	portalQuiet = 10 * time.Minute
	// udpQuiet is the silence after which who has dialled over UDP asks: QUIC finds out within
	// overquic's idle time that the other is gone.
	udpQuiet = 9 * time.Minute
	// PongTimeout is how long a Ping may stay unanswered while nothing else
	// arrives.
	PongTimeout = 15 * time.Second
	// ProbeTimeout is PongTimeout for Probe: the caller has something to say.
	ProbeTimeout = 5 * time.Second
	// MessageTimeout is how long the rest of a message may take after its
	// first byte.
	MessageTimeout = 10 * time.Second

	// writePiece is how many bytes are written at once: a slow peer must take
	// so many within writeTimeout, and a Goodbye, with all that stands before
	// it, within goodbyeTimeout.
	writePiece     = 16 << 10
	writeTimeout   = 10 * time.Second
	goodbyeTimeout = 2 * time.Second
	// maxQueue is how many bytes may wait for a peer that does not read. A
	// portal with 4,000 grants gets about 2 MB at once.
	maxQueue = 16 << 20
	// A portal may send a server portalRate messages a second for ever. A relay
	// answers for every session of every portal: it may send relayRate.
	portalRate = 200
	relayRate  = 20000
	// burst is for how many seconds' worth of messages a peer may have saved.
	burst = 10
	// messageReads is how many reads a message may take; each further as many
	// count as one more. A read returns a TLS record at most, which may hold one
	// byte and costs as much as a message. The longest message takes fewer
	// than half of them from who fills his records.
	messageReads = 32
)

// Goodbye is the error of a connection that the peer closed with a reason.
type Goodbye struct {
	Reason wire.Reason
	Text   string
}

func (g *Goodbye) Error() string {
	if g.Text == "" {
		return "peer said: " + g.Reason.String()
	}
	return fmt.Sprintf("peer said: %s: %q", g.Reason, g.Text)
}

// errQueue ends a connection whose peer does not read, errSlow one whose peer
// began a message and did not go on.
var (
	errQueue = errors.New("the peer does not read what it is sent")
	errSlow  = fmt.Errorf("a message was not whole after %v", MessageTimeout)
)

// brokenError is an error of the connection itself, not of what came over it.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// Conn is an established control connection: In is what it receives, Out what
// it sends. It holds its socket until Run has returned.
type Conn[In, Out wire.Message] struct {
	// Constant after the greeting.
	tls   Channel
	to    net.Addr // that of tls is a proxy's; nil: there is none
	proxy string   // URL; empty: none
	peer  identity.Peer
	hello wire.Hello // of the dialling side; as sent or received
	parse func(wire.Type, []byte) (In, error)
	rate  float64 // messages a second that the peer may send; 0: any number
	log   *slog.Logger
	made  time.Time
	quiet time.Duration // the silence after which the peer is asked,
	// unless pauses decides
	pauses *Pauses

	// Owned by the goroutine in Run.
	in     *receiver
	tokens float64
	filled time.Time

	unknown  atomic.Uint64 // messages of unknown types
	received atomic.Uint64 // messages of all types
	heard    atomic.Int64  // when the last message came: nanoseconds after made
	wrote    atomic.Int64  // when something was written last, likewise

	mu      sync.Mutex // guards the following
	running bool       // Run was called
	watch   watch
	// writing is that a goroutine is at the queue. Run waits for it.
	writing bool
	writers sync.WaitGroup
	// queue holds whole messages that the writer has not taken yet; unsent
	// counts its bytes and those that the writer is at.
	queue   []byte
	unsent  int
	last    bool      // queue ends with Goodbye: close when it is written,
	lastBy  time.Time // or then at the latest
	decided bool      // err is why the connection ends
	err     error
	closed  bool
}

func newConn[In, Out wire.Message](in *receiver, peer identity.Peer, hello wire.Hello, parse func(wire.Type, []byte) (In, error), log *slog.Logger) *Conn[In, Out] {
	return &Conn[In, Out]{tls: in.source.Channel, in: in, peer: peer, hello: hello, parse: parse, log: log, made: time.Now(), quiet: KeepAlive}
}

// Peer returns the proven other side.
func (c *Conn[In, Out]) Peer() identity.Peer { return c.peer }

// Hello returns the greeting of the side that dialled.
func (c *Conn[In, Out]) Hello() wire.Hello { return c.hello }

// RemoteAddr returns the address the connection comes from or goes to. Through a proxy
// that is a *net.TCPAddr only if the server was named by its address.
func (c *Conn[In, Out]) RemoteAddr() net.Addr {
	if c.to != nil {
		return c.to
	}
	return c.tls.RemoteAddr()
}

// Proxy returns the URL of the proxy that the connection goes through; empty: none.
func (c *Conn[In, Out]) Proxy() string { return c.proxy }

// named is a server as a proxy was given it.
type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }

// proxied notes that a connection goes to "host:port" through a proxy.
func (c *Conn[In, Out]) proxied(p *proxy.Proxy, address string) {
	c.proxy, c.to = p.String(), named(address)
	if at, err := netip.ParseAddrPort(address); err == nil {
		c.to = net.TCPAddrFromAddrPort(at)
	}
}

// LocalAddr returns this side's address.
func (c *Conn[In, Out]) LocalAddr() net.Addr { return c.tls.LocalAddr() }

// Unknown returns how many messages of unknown types were skipped.
func (c *Conn[In, Out]) Unknown() uint64 { return c.unknown.Load() }

// Send queues m. It never blocks. After the connection has ended, or when the
// peer has let too much pile up, m is dropped: Run returns the reason.
func (c *Conn[In, Out]) Send(m Out) { c.enqueue(m) }

// Close says Goodbye and ends the connection once that is written, or after 2
// seconds. Only the first call counts.
func (c *Conn[In, Out]) Close(reason wire.Reason, text string) { c.finish(reason, text, nil) }

// Abort ends the connection at once and without a word: there is nothing left
// to say it over. Run returns err.
func (c *Conn[In, Out]) Abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.silence = 0 // whether it would have been answered is not known
	c.endLocked(err)
}

func (c *Conn[In, Out]) enqueue(m wire.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enqueueLocked(m)
}

func (c *Conn[In, Out]) enqueueLocked(m wire.Message) {
	if c.closed || c.last {
		return
	}
	if c.unsent > maxQueue {
		c.endLocked(errQueue)
		return
	}
	c.appendLocked(m)
}

// finish queues Goodbye as the last message. Run returns err, unless the
// connection has ended or is ending for another reason.
func (c *Conn[In, Out]) finish(reason wire.Reason, text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.last {
		return
	}
	c.decided, c.err = true, err
	c.last, c.lastBy = true, time.Now().Add(goodbyeTimeout)
	c.tls.SetWriteDeadline(c.lastBy) // for what is being written now
	c.appendLocked(wire.Goodbye{Reason: reason, Text: text})
}

// end notes why the connection ends, if that is not known yet, and unblocks
// who reads and who writes.
func (c *Conn[In, Out]) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *Conn[In, Out]) endLocked(err error) {
	if c.closed {
		return
	}
	if !c.decided {
		c.decided, c.err = true, err
	}
	c.closed = true
	if c.watch.timer != nil {
		c.watch.timer.Stop()
	}
	c.tls.NetConn().Close() // without close_notify: that could block, and Goodbye says more
}

// Run receives messages and hands each to handle, in order, until the
// connection ends; an error of handle ends it, told to the peer as a protocol
// error. Ping and Pong are handled here. When ctx is cancelled Run says
// Goodbye with ReasonShutdown. Run returns nil if this side closed the
// connection, *Goodbye if the peer did, else what went wrong.
func (c *Conn[In, Out]) Run(ctx context.Context, handle func(In) error) error {
	c.heard.Store(int64(time.Since(c.made)))
	c.begin()
	stop := context.AfterFunc(ctx, func() { c.Close(wire.ReasonShutdown, "") })
	defer stop()
	err := c.read(handle)
	var bye *Goodbye
	var broken *brokenError
	switch {
	case errors.As(err, &bye), errors.As(err, &broken):
		c.end(err)
	case errors.Is(err, errSlow):
		c.finish(wire.ReasonTimeout, err.Error(), err)
	default:
		c.finish(wire.ReasonProtocol, err.Error(), err)
	}
	c.writers.Wait()
	if stream, is := c.tls.(*overquic.Conn); is {
		stream.Wait() // the system does not send the last word when this process has ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// begin starts what goes on beside reading.
func (c *Conn[In, Out]) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = true
	c.watchLocked()
	c.writeLocked()
}

// read returns the error that ended it, never nil. It waits on little stack: what comes is
// taken in a goroutine of its own, which ends when nothing more has come.
func (c *Conn[In, Out]) read(handle func(In) error) error {
	for {
		if err := c.in.await(); err != nil {
			return err
		}
		taken := make(chan error, 1)
		go func() { taken <- c.drain(handle) }()
		if err := <-taken; err != nil {
			return err
		}
	}
}

// drain takes messages until it would have to wait for the next.
func (c *Conn[In, Out]) drain(handle func(In) error) error {
	for more := true; more; more = c.in.more() {
		t, body, err := c.in.next(MessageTimeout)
		if err != nil {
			return err
		}
		if err := c.take(t, body, handle); err != nil {
			return err
		}
	}
	return nil
}

// take takes one message.
func (c *Conn[In, Out]) take(t wire.Type, body []byte, handle func(In) error) error {
	c.heard.Store(int64(time.Since(c.made)))
	c.received.Add(1)
	c.answered()
	if c.rate > 0 && !c.admit(time.Now()) {
		return fmt.Errorf("more than %v messages a second", c.rate)
	}
	m, err := c.parse(t, body)
	if errors.Is(err, wire.ErrUnknownType) {
		c.unknown.Add(1)
		c.log.Debug("message skipped", "peer", c.peer.ID, "type", int(t))
		return nil
	}
	if err != nil {
		return err
	}
	switch m := any(m).(type) {
	case wire.Ping:
		c.enqueue(wire.Pong(m))
	case wire.Pong:
	case wire.Goodbye:
		return &Goodbye{Reason: m.Reason, Text: m.Text}
	case wire.Hello, wire.Welcome:
		return fmt.Errorf("message of type %d after the greeting", t)
	default:
		return handle(any(m).(In))
	}
	return nil
}

// admit takes what a message costs from the bucket of the peer's messages: a
// token, and more if it came in very small pieces.
func (c *Conn[In, Out]) admit(now time.Time) bool {
	cost := float64(max(1, c.in.source.count/messageReads))
	c.in.source.count = 0
	if c.filled.IsZero() {
		c.tokens = burst * c.rate
	} else {
		c.tokens = min(burst*c.rate, c.tokens+now.Sub(c.filled).Seconds()*c.rate)
	}
	c.filled = now
	if c.tokens < cost {
		return false
	}
	c.tokens -= cost
	return true
}
