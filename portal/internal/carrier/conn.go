package carrier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Config says what carrier this is.
type Config struct {
	Client     bool // the TLS client
	Session    wire.SessionID
	Connection uint16      // its number in the session
	TLS        *tls.Config // OverTCP's; QUIC has proven its peer already
	// Since is from before the handshake. Zero: now, which over TCP is before it.
	Since time.Time
	// Idle says for how long the carrier may carry nothing before the TLS
	// client sends a PING, to keep the state of NATs on the way; the server
	// waits 30 seconds longer. It is asked each time the carrier becomes
	// idle. Nil: 280 seconds on TCP, 15 on QUIC.
	Idle func() time.Duration
}

// begun returns the configuration with the moment at which the carrier was begun.
func (c Config) begun() Config {
	if c.Since.IsZero() {
		c.Since = time.Now()
	}
	return c
}

// Conn is one carrier. Its methods are safe for concurrent use, but for
// SendHello and AwaitHello, which come before Run, in one goroutine. Run or
// Abort must follow the making of a carrier.
type Conn interface {
	Kind() wire.CarrierKind
	// Client reports whether this portal is the TLS client.
	Client() bool
	// Peer is the peer's leaf certificate, as TLS proved it.
	Peer() *x509.Certificate
	// Chain is what the peer has presented: Peer, then its authorities.
	Chain() []*x509.Certificate
	// Since is a moment before this portal has shown its own certificate.
	Since() time.Time
	// Session is the session that the carrier belongs to, and Connection its
	// number there.
	Session() wire.SessionID
	Connection() uint16
	// Binding is the TLS exporter of this connection: both portals have the
	// same, and no other connection has it. Package proto says what is made
	// of it.
	Binding() [32]byte

	// SendHello queues this side's HELLO, to be written with what is sent first
	// or by AwaitHello. Version, Session and Connection are the carrier's to
	// fill in. It is called once, before Run.
	SendHello(m wire.TunnelHello)
	// AwaitHello writes what SendHello has queued, waits for the peer's HELLO
	// and sends nothing else. So a peer that has proven itself over several
	// connections can say which of them it takes: a HELLO is on no other. It
	// may be called once, before Run; an error has closed the connection.
	AwaitHello(ctx context.Context) (wire.TunnelHello, error)
	// Run sends what waits and serves the carrier until it dies, ctx ends or
	// Close was called; nil in the last two cases. If AwaitHello was not
	// called, the peer's HELLO goes to h; it must come within 10 seconds. When Run returns, the connection is
	// closed and nothing calls h any more, nor a Source but for a Lane.Write
	// that is under way.
	Run(ctx context.Context, h Handler) error
	// Close sends the frames in last, waits a moment for the peer to read what
	// was sent, and ends Run.
	Close(last []byte)
	// Abort closes the connection and ends Run with err, at once.
	Abort(err error)

	// Lane returns the place of a stream in the carrier's turns. It must be
	// there before the stream's first frame is sent; who answers a stream's first
	// frame makes it while it handles that.
	Lane(stream uint32, src Source) Lane
	// Send queues control frames: those of stream 0, those of flows and probes,
	// and the ACK or RESET of a stream that has no lane here. They are written
	// before anything else that waits, and the call waits for nothing. Where too
	// many wait the carrier dies: its peer asks and does not read the answers.
	Send(frames []byte)
	// Try is Send for what may as well be left: it reports false, and sends
	// nothing, where many frames wait.
	Try(frames []byte) bool
	// Datagram queues one datagram of a flow, which it copies. It reports false
	// if the queue is full and the datagram was dropped. It never waits for the
	// socket: the caller may serve the flows of other tunnels too.
	Datagram(stream uint32, body []byte) bool

	// Turn is how many bytes a bulk stream should put into one frame.
	Turn() int
	// RTT is the smoothed round trip; 0 until the first was measured.
	RTT() time.Duration
	// LeastRTT is the shortest round trip so far; 0 until the first was measured.
	LeastRTT() time.Duration
	// WindowRTT is the round trip that windows should be made for: what is
	// measured now, but at most twice the shortest ever.
	WindowRTT() time.Duration
	// Measure measures the round trip unless that was done a moment ago. It
	// does not wait for the answer.
	Measure(now time.Time)
	// Doubt asks the peer at once, behind a PAD that fills a packet, and has the
	// carrier found silent if no answer comes within a few round trips: something
	// shows that its relay may be gone, or its path too narrow.
	Doubt()
	// Quiet returns since when nothing has come that was owed, as of the last
	// look that found the peer silent; zero: none has.
	Quiet() time.Time
	// Ping measures one round trip.
	Ping(ctx context.Context) (time.Duration, error)
	Stats() Stats
}

// Lane is a Source's place in a carrier's turns. Its methods may be called with
// the lock held that the Source's methods take.
type Lane interface {
	// Urgent has the Source's urgent frames written by a goroutine of the
	// carrier.
	Urgent()
	// Ready queues the lane for its turn, to be written by a goroutine of the
	// carrier.
	Ready()
	// Write queues the lane for its turn; if nobody writes, the caller does
	// and may wait for the socket: for bulk, call Ready. A Handler must not
	// call it, nor who holds the lock that the Source's methods take.
	Write()
	// Close ends the lane: the stream has left the carrier, or is over. No call
	// of the Source but Wrote begins any more when it returns. One that has
	// begun may still wait for the Source's lock, and what that returns is
	// sent. So a Source that moves to another carrier must know from which
	// lane it is asked: a value of its own for each lane.
	Close()
}

// Source is what a carrier asks for a stream's frames when its turn comes. Its
// methods are called by one goroutine at a time.
type Source interface {
	// Urgent appends the frames that do not wait for a turn: ACK, RESET,
	// RESUME.
	Urgent(b []byte) []byte
	// Next returns the next frame that waits for its turn, whole, or nil, and
	// whether there is another. The carrier reads it until it calls Wrote,
	// which it does once for each frame, also if the lane or the carrier ends
	// meanwhile.
	Next() (frame []byte, more bool)
	Wrote()
}

// Handler takes what comes on a carrier. Its methods must not block.
type Handler interface {
	// Hello takes the peer's HELLO, whose version, session and connection are
	// right, if AwaitHello has not. It is called before Frame.
	Hello(m wire.TunnelHello) error
	// Frame takes one frame that is not the carrier's own. body is borrowed
	// until it returns. Frames of one stream come one at a time, in the order of
	// its lane; those that the peer gave to Send, those of different streams,
	// and a flow's datagrams may come before or beside them, from several
	// goroutines at once. An error closes the carrier; it is what Run returns.
	Frame(h wire.FrameHeader, body []byte) error
	// Silent says that an answer is overdue and nothing else comes either, or
	// that the peer is heard again. It is no end. That the peer is silent is said
	// again when Stats().Stuck becomes true.
	Silent(silent bool)
}

// Stats is a snapshot of one carrier.
type Stats struct {
	RTT      time.Duration // smoothed; 0: not measured yet
	Sent     uint64        // bytes of frames
	Received uint64
	Dropped  uint64 // datagrams, because too many waited, or too long
	Unknown  uint64 // frames of a type unknown here
	Packets  uint64 // packets sent; on TCP segments, where the system tells
	Lost     uint64 // of these; on TCP those that were sent again
	// Stuck says that the peer is silent, or was when the carrier died, while TCP
	// sends a segment of full size again and again though smaller ones pass, or
	// the peer's come: perhaps the path has come to take smaller packets only, and
	// says nothing. Linux tells.
	Stuck bool
}

// ErrClosed ends a carrier whose peer closed the connection without a CLOSE:
// its program has ended, rather than that the network broke.
var ErrClosed = errors.New("the peer closed the connection")

var (
	errHelloLate    = fmt.Errorf("the peer proved itself but sent no HELLO within %v", helloWait)
	errHelloMissing = errors.New("the peer's first frame is not HELLO")
	errSilent       = errors.New("nothing came from the peer, not even the answer to a PING")
	errUnread       = errors.New("the peer does not read what answers it")
	errDied         = errors.New("the carrier died")
)
