package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

// Codes of CONNECTION_CLOSE.
const (
	codeClosed quic.ApplicationErrorCode = 0 // the end was meant
	codeBroken quic.ApplicationErrorCode = 1 // something was wrong
)

// quicCarrier is a QUIC connection: a control stream, a QUIC stream for each
// stream of the tunnel, and DATAGRAM frames.
//
// It has a goroutine for each QUIC stream, which reads, and one for each lane
// that is writing. quic-go lets the streams take turns, with a packet each;
// the control stream and streams that have little to send come before those in
// bulk, and datagrams before all.
type quicCarrier struct {
	carrier
	conn   *quic.Conn
	outbox outbox
	joined chan struct{} // closed when the peer's HELLO was right
	held   atomic.Int64  // bytes of the buffers that frames are read into
	busy   atomic.Int32  // lanes that are writing

	// The following belong to Run, and to others once joined is closed.
	control *quic.Stream // its making is AwaitHello's on the TLS server
	in      *frames      // of control
	handler Handler

	mu      sync.Mutex
	err     error // why the carrier has died
	shut    bool  // Close was called
	over    bool  // Run waits for the tasks: no more are begun
	closer  *time.Timer
	queue   []byte                 // control frames that wait to be written
	streams map[uint32]*quicStream // by number of the tunnel's stream
	lingers int                    // streams whose lane is closed and that are still read
	wake    chan struct{}          // there are control frames, or the carrier is shut
	tasks   sync.WaitGroup
}

var errNoDatagrams = errors.New("it takes no datagrams")

// OverQUIC makes a carrier of a QUIC connection that was made with QUICConfig
// and on which both portals have proven themselves, or are about to: the deadline
// of ctx bounds it. It takes ownership.
func OverQUIC(ctx context.Context, conn *quic.Conn, cfg Config) (Conn, error) {
	if cfg.Idle == nil {
		cfg.Idle = func() time.Duration { return idleUDP }
	}
	c := &quicCarrier{conn: conn, joined: make(chan struct{}), streams: make(map[uint32]*quicStream), wake: make(chan struct{}, 1)}
	c.cfg, c.kind, c.send, c.abort = cfg.begun(), wire.CarrierQUIC, c.Send, c.Abort
	c.live.init()
	c.outbox.init(conn)
	if err := c.open(ctx); err != nil {
		_ = conn.CloseWithError(codeBroken, "")
		return nil, fmt.Errorf("prove the peer of carrier %d: %w", cfg.Connection, err)
	}
	return c, nil
}

func (c *quicCarrier) open(ctx context.Context) (err error) {
	select {
	case <-c.conn.HandshakeComplete():
	case <-c.conn.Context().Done():
		return context.Cause(c.conn.Context())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	state := c.conn.ConnectionState()
	if !state.SupportsDatagrams.Remote || !state.SupportsDatagrams.Local {
		return errNoDatagrams
	}
	if err := c.prove(state.TLS); err != nil {
		return err
	}
	if c.cfg.Client {
		control, err := c.conn.OpenStream()
		if err != nil {
			return err
		}
		c.setControl(control)
	}
	return nil
}

// SendHello implements Conn.
func (c *quicCarrier) SendHello(m wire.TunnelHello) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, c.hello(m)...)
}

// AwaitHello implements Conn.
func (c *quicCarrier) AwaitHello(ctx context.Context) (wire.TunnelHello, error) {
	return c.awaitHello(ctx, c.exchange)
}

// explain puts the errors of QUIC into the words of this package.
func (c *quicCarrier) explain(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(c.conn.Context()); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	var app *quic.ApplicationError
	if errors.As(err, &app) && app.Remote {
		if app.ErrorCode == codeClosed {
			return ErrClosed
		}
		return fmt.Errorf("the peer broke the connection off (code %d)", app.ErrorCode)
	}
	if err == io.EOF {
		return ErrClosed
	}
	return err
}

// Run implements Conn.
func (c *quicCarrier) Run(ctx context.Context, h Handler) error {
	stop := context.AfterFunc(ctx, func() { c.Close(nil) })
	defer stop()

	done := make(chan struct{})
	c.handler = h
	c.ask(time.Now(), false)
	c.spawn(func() { c.watch(done, h) })
	c.spawn(func() { c.outbox.run(c) })
	c.Abort(c.serve(h))
	close(done)
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.tasks.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closer != nil {
		c.closer.Stop()
	}
	c.queue = nil
	if c.shut {
		return nil
	}
	return c.err
}

// serve handles the frames of the control stream, and has those of the others
// handled once the peer has said HELLO.
func (c *quicCarrier) serve(h Handler) error {
	if c.greeted {
		c.spawn(c.writeControl)
	} else if err := c.greet(h); err != nil {
		return err
	}
	close(c.joined)
	c.spawn(c.acceptStreams)
	c.spawn(c.receiveDatagrams)
	for {
		err := c.in.next(func(f wire.FrameHeader, body []byte) error {
			// The rest of a stream's frames come in the order of its own QUIC
			// stream. An ACK here is the wish for a stream that is elsewhere,
			// and a DATAGRAM must not overtake its flow's OPEN.
			switch f.Type {
			case wire.FrameData, wire.FrameFin, wire.FrameResume:
				return fmt.Errorf("%w: %v of stream %d on the control stream", wire.ErrMalformed, f.Type, f.Stream)
			}
			defer c.lockStream(f.Stream)()
			return c.handle(f, body)
		})
		if err != nil {
			return c.explain(err)
		}
	}
}

// greet begins to write, and passes the peer's HELLO on.
func (c *quicCarrier) greet(h Handler) error {
	stop := c.hurry()
	defer stop()
	if err := c.findControl(); err != nil {
		return err
	}
	c.spawn(c.writeControl)
	m, err := c.firstFrame()
	if err != nil {
		return err
	}
	return h.Hello(m)
}

// handle takes a frame and counts it.
func (c *quicCarrier) handle(f wire.FrameHeader, body []byte) error {
	if err := c.take(f, body, c.handler); err != nil {
		return err
	}
	c.counted(f)
	return nil
}

// spawn begins a task that Run waits for, unless Run is about to end.
func (c *quicCarrier) spawn(task func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.tasks.Go(task)
	}
}

// Close implements Conn. The peer closes the connection when it has read the
// end of the control stream.
func (c *quicCarrier) Close(last []byte) {
	c.mu.Lock()
	if c.shut || c.err != nil {
		c.mu.Unlock()
		return
	}
	c.shut = true
	c.closer = time.AfterFunc(closeWait, func() { c.Abort(ErrClosed) })
	c.queue = append(c.queue, last...)
	c.mu.Unlock()
	c.wakeControl()
}

// Abort implements Conn.
func (c *quicCarrier) Abort(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	code := codeBroken
	if c.shut || errors.Is(err, ErrClosed) {
		code = codeClosed
	}
	c.mu.Unlock()
	if first {
		c.live.end()
		_ = c.conn.CloseWithError(code, "")
	}
}

// Turn implements Conn: what the path takes in turnTime, but not so much that
// the peer would have to keep more than it may of the streams' frames, which all
// come at the same time.
func (c *quicCarrier) Turn() int {
	s := c.conn.ConnectionStats()
	if s.SmoothedRTT <= 0 {
		return minTurn
	}
	turn := int64(s.CongestionWindow) * int64(turnTime) / int64(s.SmoothedRTT)
	turn = min(turn, maxHeld/4/int64(max(c.busy.Load(), 1)))
	return int(min(max(turn, minTurn), wire.MaxData))
}

// Stats implements Conn.
func (c *quicCarrier) Stats() Stats {
	s, q := c.carrier.Stats(), c.conn.ConnectionStats()
	s.Packets, s.Lost = q.PacketsSent, q.PacketsLost
	return s
}
