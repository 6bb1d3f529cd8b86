package carrier

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/wire"
)

// tcpCarrier is TLS 1.3 over TCP.
//
// Two goroutines serve it: one reads and calls the Handler, one writes.
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
type tcpCarrier struct {
	carrier
	raw    net.Conn
	socket *socket
	tls    *record.Conn
	reads  readBudget
	writer writer

	lastMu sync.Mutex
	last   *segmentCount // from before the connection was closed
	stuck  atomic.Bool

	// head belongs to whoever reads: AwaitHello, then Run.
	head [wire.FrameHeaderLen]byte
}

// OverTCP proves both portals to each other over conn, of which it takes
// ownership. The deadline of ctx bounds it.
func OverTCP(ctx context.Context, conn net.Conn, cfg Config) (Conn, error) {
	conf := cfg.TLS.Clone()
	conf.MinVersion = tls.VersionTLS13
	conf.DynamicRecordSizingDisabled = true
	conf.SessionTicketsDisabled = true
	c := &tcpCarrier{raw: conn, socket: newSocket(conn)}
	c.cfg, c.kind, c.send, c.abort = cfg.begun(), wire.CarrierTCP, c.Send, c.Abort
	if cfg.Client {
		c.tls = record.Client(c.socket, conf)
	} else {
		c.tls = record.Server(c.socket, conf)
	}
	err := c.tls.HandshakeContext(ctx)
	if err == nil {
		err = c.prove(c.tls.ConnectionState())
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("prove the peer of carrier %d: %w", cfg.Connection, err)
	}
	c.still = c.silence
	if c.cfg.Idle == nil {
		c.cfg.Idle = func() time.Duration { return idleTCP }
	}
	c.live.init()
	c.writer.init(c)
	return c, nil
}

// SendHello implements Conn.
func (c *tcpCarrier) SendHello(m wire.TunnelHello) { c.writer.queueFirst(c.hello(m)) }

// AwaitHello implements Conn.
func (c *tcpCarrier) AwaitHello(ctx context.Context) (wire.TunnelHello, error) {
	return c.awaitHello(ctx, c.exchange)
}

// Run implements Conn.
func (c *tcpCarrier) Run(ctx context.Context, h Handler) error {
	var tasks sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { c.Close(nil) })
	defer stop()

	c.ask(time.Now(), false)
	done := make(chan struct{})
	tasks.Go(func() { c.writer.run(done) })
	tasks.Go(func() { c.watch(done, h) })
	err := c.read(h)
	c.Abort(err)
	close(done)
	c.closeRaw()
	tasks.Wait()
	c.writer.settle()
	if c.writer.closing() {
		return nil
	}
	return c.writer.failure()
}

// Close implements Conn.
func (c *tcpCarrier) Close(last []byte) {
	c.writer.close(last, c.closeRaw)
}

// Abort implements Conn: it records why the carrier died, the first time, and
// wakes whoever waits in the socket.
func (c *tcpCarrier) Abort(err error) {
	if c.writer.fail(err) {
		c.live.end()
		c.closeRaw()
	}
}
