// Package carrier moves frames between two proven portals over one TLS 1.3
// connection: streams in fair turns, datagrams that are never queued behind
// them, and a PING that tells a dead connection from a silent one. A carrier
// knows nothing of resuming, of grants or of applications; the tunnel above it
// owns the streams and is called for every frame.
//
// Two goroutines serve a carrier: one reads and calls the Handler, one writes.
// Whoever has something to send may also write in its place while it is idle:
// a small write then costs no switch of goroutines. The goroutine that reads
// never writes, or two portals with full sockets would wait for each other.
//
// What makes it fast, by the profile of the benchmarks in the tunnel's package:
// records are collected and written with one system call, and read with large
// ones (socket); frames fill records exactly (wire.MaxData); the bytes of a DATA
// frame go from the buffer that the application's socket was read into straight
// into the record, and from the buffer they were decrypted into to the far
// application. On two processors a stream then costs less than a forwarder
// without any framing that makes a system call for each record. What is left is
// the kernel's TCP (more than half), AES-GCM (a quarter) and four copies that
// the interface of crypto/tls makes necessary (a fourteenth). Windows larger
// than the way needs cost more than ACKs do, for the bytes leave the
// processors' caches. Smaller socket buffers towards the applications changed
// nothing.
package carrier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/wire"
)

// Config says what carrier this is.
type Config struct {
	Client     bool // the TLS client
	Session    wire.SessionID
	Connection uint16
	TLS        *tls.Config
}

// Handler takes the frames of a carrier.
type Handler interface {
	// Frame takes one frame that is not the carrier's own. body is borrowed
	// until it returns. It must not block. An error closes the carrier; it
	// is what Run returns.
	Frame(h wire.FrameHeader, body []byte) error
}

// Conn is one carrier. Its methods are safe for concurrent use.
type Conn struct {
	cfg    Config
	raw    net.Conn
	socket *socket
	tls    *record.Conn
	peer   *x509.Certificate

	live   liveness
	reads  readBudget
	stats  counters
	writer writer

	// The following belong to whoever reads: AwaitHello, then Run.
	head    [wire.FrameHeaderLen]byte
	greeted bool // the peer's HELLO was right
}

// counters are what Stats reports.
type counters struct {
	sent, received atomic.Uint64
	dropped        atomic.Uint64
	unknown        atomic.Uint64
}

// Stats is a snapshot of one carrier.
type Stats struct {
	RTT      time.Duration // smoothed; 0: not measured yet
	Sent     uint64        // bytes of frames
	Received uint64
	Dropped  uint64 // datagrams, because the queue was full
	Unknown  uint64 // frames of a type unknown here
}

// Handshake proves both portals to each other over conn, of which it takes
// ownership. The deadline of ctx bounds it. HELLO and a first PING wait to be
// written with what is sent first. Run or Abort must follow.
func Handshake(ctx context.Context, conn net.Conn, cfg Config) (*Conn, error) {
	conf := cfg.TLS.Clone()
	conf.MinVersion = tls.VersionTLS13
	conf.DynamicRecordSizingDisabled = true
	conf.SessionTicketsDisabled = true
	c := &Conn{cfg: cfg, raw: conn, socket: newSocket(conn)}
	if cfg.Client {
		c.tls = record.Client(c.socket, conf)
	} else {
		c.tls = record.Server(c.socket, conf)
	}
	if err := c.tls.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove the peer of carrier %d: %w", cfg.Connection, err)
	}
	certs := c.tls.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		conn.Close()
		return nil, fmt.Errorf("prove the peer of carrier %d: it sent no certificate", cfg.Connection)
	}
	c.peer = certs[0]
	c.live.init()
	hello := wire.AppendFrame(nil, 0, wire.TunnelHello{Version: wire.TunnelVersion, Session: cfg.Session, Connection: cfg.Connection})
	c.writer.init(c, wire.AppendFrame(hello, 0, c.live.ping(time.Now())))
	return c, nil
}

// AwaitHello waits for the peer's HELLO and sends nothing itself. So a peer that
// has proven itself over several connections can say which of them it takes: a
// HELLO is on no other. It may be called once, before Run; an error closes the
// connection.
func (c *Conn) AwaitHello(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.Abort(context.Cause(ctx)) })
	err := c.hello(make([]byte, smallFrame))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Abort(err)
		return fmt.Errorf("wait for the HELLO of carrier %d: %w", c.cfg.Connection, err)
	}
	c.greeted = true
	return nil
}

// Peer is the peer's leaf certificate, as TLS proved it.
func (c *Conn) Peer() *x509.Certificate { return c.peer }

// Connection is the carrier's number in its session.
func (c *Conn) Connection() uint16 { return c.cfg.Connection }

// RTT is the smoothed round trip; 0 until the first was measured.
func (c *Conn) RTT() time.Duration { return time.Duration(c.live.rtt.Load()) }

// Stats returns a snapshot.
func (c *Conn) Stats() Stats {
	return Stats{
		RTT:      c.RTT(),
		Sent:     c.stats.sent.Load(),
		Received: c.stats.received.Load(),
		Dropped:  c.stats.dropped.Load(),
		Unknown:  c.stats.unknown.Load(),
	}
}

// closeWait is how long a closing carrier waits for its last frames to leave
// and for the peer to close its side.
const closeWait = time.Second

// ErrClosed ends a carrier whose peer closed the connection without a CLOSE:
// its program has ended, rather than that the network broke.
var ErrClosed = errors.New("the peer closed the connection")

var (
	errHelloMissing = errors.New("the peer's first frame is not HELLO")
	errSilent       = errors.New("nothing came from the peer, not even the answer to a PING")
	errUnread       = errors.New("the peer does not read what answers it")
)

// Run sends what waits and serves the carrier until it dies, ctx ends or Close
// was called; nil in the last two cases. joined is called once, when
// the peer's HELLO was right, which may be at once after AwaitHello. When Run returns, the connection is closed and
// nothing calls the Handler any more.
func (c *Conn) Run(ctx context.Context, h Handler, joined func()) error {
	var tasks sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { c.Close(nil) })
	defer stop()

	c.Send(nil)
	done := make(chan struct{})
	tasks.Go(func() { c.writer.run(done) })
	tasks.Go(func() { c.watch(done) })
	err := c.read(h, joined)
	c.fail(err)
	close(done)
	c.raw.Close()
	tasks.Wait()
	c.writer.settle()
	if c.writer.closing() {
		return nil
	}
	return c.failure()
}

// Close sends the frames in last, waits a moment for the peer to read what was
// sent, and ends Run.
func (c *Conn) Close(last []byte) {
	c.writer.close(last, func() { c.raw.Close() })
}

// Abort closes the connection and ends Run with err, at once.
func (c *Conn) Abort(err error) { c.fail(err) }

// fail records why the carrier died, the first time, and wakes whoever waits
// in the socket.
func (c *Conn) fail(err error) {
	if c.writer.fail(err) {
		c.raw.Close()
	}
}

func (c *Conn) failure() error {
	c.writer.mu.Lock()
	defer c.writer.mu.Unlock()
	return c.writer.err
}
