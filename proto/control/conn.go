// Package control is one framed control connection: between a portal and the
// server, or between a relay and the server, inside TLS 1.3.
//
// The portal or relay dials and speaks first: Hello. The server answers
// Welcome, or Goodbye where no version is common. TLS handshake and greeting
// together have HandshakeTimeout. From then on both send messages of their
// direction whenever they like (see package wire).
//
// A Conn has one reader, the goroutine in Run, and one writer goroutine that
// Run owns; Send only queues. So a slow peer blocks nobody: when its queue is
// full the connection ends. A peer that is silent for KeepAlive is asked with
// a Ping; one that then stays silent for PongTimeout is gone.
package control

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// HandshakeTimeout bounds TLS handshake, Hello and Welcome together.
	HandshakeTimeout = 10 * time.Second
	// KeepAlive is the silence after which a Ping is sent: well below the 2
	// hours that RFC 5382 asks of NATs and the 5 minutes that many keep, and
	// seldom enough that an idle portal costs less than 100 KB a day.
	KeepAlive = 4 * time.Minute
	// PongTimeout is how long a Ping may stay unanswered while nothing else
	// arrives.
	PongTimeout = 15 * time.Second
	// ProbeTimeout is PongTimeout for Probe: the caller has something to say.
	ProbeTimeout = 5 * time.Second

	writeTimeout = 10 * time.Second
	// maxQueue is how many bytes may wait for a peer that does not read. A
	// portal with 4,000 grants gets about 2 MB at once.
	maxQueue = 16 << 20
	// A peer may send messageRate messages a second for ever, and messageBurst
	// at once.
	messageRate  = 200
	messageBurst = 2000
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

// errQueue ends a connection whose peer does not read.
var errQueue = errors.New("the peer does not read what it is sent")

// Conn is an established control connection: In is what it receives, Out what
// it sends.
type Conn[In, Out wire.Message] struct {
	// Constant after the greeting.
	tls     *tls.Conn
	peer    identity.Peer
	hello   wire.Hello // of the dialling side; as sent or received
	parse   func(wire.Type, []byte) (In, error)
	limited bool // the peer's message rate is bounded
	log     *slog.Logger

	// Owned by the goroutine in Run.
	r      *bufio.Reader
	body   []byte
	tokens float64
	filled time.Time

	unknown  atomic.Uint64 // messages of unknown types
	received atomic.Int64  // when the last message came, Unix nanoseconds
	probe    chan struct{} // capacity 1: Probe was called
	wake     chan struct{} // capacity 1: the queue has grown
	over     chan struct{} // closed when the connection has ended

	mu sync.Mutex // guards the following
	// queue holds whole messages that the writer has not taken yet.
	queue  []byte
	err    error // why the connection ends; set once
	closed bool
	last   bool // queue ends with Goodbye: close when it is written
}

func newConn[In, Out wire.Message](c *tls.Conn, parse func(wire.Type, []byte) (In, error), log *slog.Logger) (*Conn[In, Out], error) {
	peer, err := identity.PeerOf(c.ConnectionState())
	if err != nil {
		return nil, err
	}
	return &Conn[In, Out]{
		tls: c, peer: peer, parse: parse, log: log,
		r:     bufio.NewReaderSize(c, 4096),
		wake:  make(chan struct{}, 1),
		probe: make(chan struct{}, 1),
		over:  make(chan struct{}),
	}, nil
}

// Peer returns the proven other side.
func (c *Conn[In, Out]) Peer() identity.Peer { return c.peer }

// Hello returns the greeting of the side that dialled.
func (c *Conn[In, Out]) Hello() wire.Hello { return c.hello }

// RemoteAddr returns the address the connection comes from or goes to.
func (c *Conn[In, Out]) RemoteAddr() net.Addr { return c.tls.RemoteAddr() }

// Unknown returns how many messages of unknown types were skipped.
func (c *Conn[In, Out]) Unknown() uint64 { return c.unknown.Load() }

// Send queues m. It never blocks. After the connection has ended, or when the
// peer has let too much pile up, m is dropped: Run returns the reason.
func (c *Conn[In, Out]) Send(m Out) { c.enqueue(m, false) }

// Close says Goodbye and ends the connection once that is written. Only the
// first call counts.
func (c *Conn[In, Out]) Close(reason wire.Reason, text string) {
	c.enqueue(wire.Goodbye{Reason: reason, Text: text}, true)
}

// Probe asks the peer for a sign of life within ProbeTimeout; if none comes,
// the connection ends.
func (c *Conn[In, Out]) Probe() {
	select {
	case c.probe <- struct{}{}:
	default: // one is under way
	}
}

func (c *Conn[In, Out]) enqueue(m wire.Message, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.last {
		return
	}
	if len(c.queue) > maxQueue {
		c.endLocked(errQueue)
		return
	}
	c.queue = wire.AppendMessage(c.queue, m)
	c.last = last
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// end notes why the connection ends and unblocks both goroutines.
func (c *Conn[In, Out]) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *Conn[In, Out]) endLocked(err error) {
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	close(c.over)
	c.tls.NetConn().Close() // without close_notify: that could block
}

// Run receives messages and hands each to handle, in order, until the
// connection ends; an error of handle ends it, told to the peer as a protocol
// error. Ping and Pong are handled here. When ctx is cancelled Run says
// Goodbye with ReasonShutdown. Run returns nil if this side closed the
// connection, *Goodbye if the peer did, else what went wrong.
func (c *Conn[In, Out]) Run(ctx context.Context, handle func(In) error) error {
	var owned sync.WaitGroup
	owned.Go(c.write)
	owned.Go(func() { c.watch(ctx) })
	c.received.Store(time.Now().UnixNano())
	err := c.read(handle)
	var bye *Goodbye
	if err != nil && !errors.As(err, &bye) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		c.Close(wire.ReasonProtocol, err.Error())
	} else {
		c.end(err)
	}
	owned.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Conn[In, Out]) read(handle func(In) error) error {
	for {
		t, body, err := c.next()
		if err != nil {
			return err
		}
		c.received.Store(time.Now().UnixNano())
		if c.limited && !c.admit(time.Now()) {
			return fmt.Errorf("more than %d messages a second", messageRate)
		}
		m, err := c.parse(t, body)
		if errors.Is(err, wire.ErrUnknownType) {
			c.unknown.Add(1)
			c.log.Debug("message skipped", "peer", c.peer.ID, "type", int(t))
			continue
		}
		if err != nil {
			return err
		}
		switch m := any(m).(type) {
		case wire.Ping:
			c.enqueue(wire.Pong{Token: m.Token}, false)
		case wire.Pong:
		case wire.Goodbye:
			return &Goodbye{Reason: m.Reason, Text: m.Text}
		default:
			if err := handle(any(m).(In)); err != nil {
				return err
			}
		}
	}
}

// next reads one message. The body is valid until the next call.
func (c *Conn[In, Out]) next() (wire.Type, []byte, error) {
	header, err := c.r.Peek(wire.ControlHeaderLen)
	if err != nil {
		if len(header) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	t, n, err := wire.ParseControlHeader(header)
	if err != nil {
		return 0, nil, err
	}
	c.r.Discard(wire.ControlHeaderLen)
	if cap(c.body) < n {
		c.body = make([]byte, n)
	}
	c.body = c.body[:n]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, c.body, nil
}

// admit takes a token from the bucket of the peer's messages.
func (c *Conn[In, Out]) admit(now time.Time) bool {
	if c.filled.IsZero() {
		c.tokens = messageBurst
	} else {
		c.tokens = min(messageBurst, c.tokens+now.Sub(c.filled).Seconds()*messageRate)
	}
	c.filled = now
	if c.tokens < 1 {
		return false
	}
	c.tokens--
	return true
}

// write sends what is queued until the connection ends.
func (c *Conn[In, Out]) write() {
	for {
		select {
		case <-c.wake:
		case <-c.over:
			return
		}
		c.mu.Lock()
		b, last := c.queue, c.last
		c.queue = nil
		c.mu.Unlock()
		c.tls.SetWriteDeadline(time.Now().Add(writeTimeout))
		if len(b) > 0 {
			if _, err := c.tls.Write(b); err != nil {
				c.end(fmt.Errorf("write to %s: %w", c.peer.ID, err))
				return
			}
		}
		if last {
			c.tls.CloseWrite()
			c.end(nil)
			return
		}
	}
}

// watch keeps the connection alive and notices when it is not.
func (c *Conn[In, Out]) watch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.Close(wire.ReasonShutdown, "") })
	defer stop()
	timer := time.NewTimer(KeepAlive)
	defer timer.Stop()
	var asked time.Time // of the Ping that waits for its answer
	patience := PongTimeout
	ask := func(wait time.Duration) {
		asked, patience = time.Now(), wait
		c.enqueue(wire.Ping{Token: uint64(asked.UnixNano())}, false)
		timer.Reset(wait)
	}
	for {
		select {
		case <-c.probe:
			ask(ProbeTimeout)
		case <-timer.C:
			heard := time.Unix(0, c.received.Load())
			switch {
			case !asked.IsZero() && !heard.After(asked):
				c.end(fmt.Errorf("no answer from %s for %s", c.peer.ID, patience))
				return
			case time.Since(heard) >= KeepAlive:
				ask(PongTimeout)
			default:
				asked = time.Time{}
				timer.Reset(KeepAlive - time.Since(heard))
			}
		case <-c.over:
			return
		}
	}
}
