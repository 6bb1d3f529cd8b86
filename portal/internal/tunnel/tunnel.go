// Package tunnel is the association of two portals: it owns one or more
// carriers and every stream and flow between the two.
package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Config is what a tunnel is made from. It must not change afterwards.
type Config struct {
	// Client is true on the portal that opened the session: it is the TLS
	// client of every carrier and decides how many there are.
	Client  bool
	Session wire.SessionID
	// Dial returns a joined leg for the carrier of that connection number:
	// what is written to it arrives at the peer. Connection 0 is dialled by
	// Run; further ones while the tunnel lives.
	Dial func(ctx context.Context, connection uint16) (net.Conn, error)
	// TLS verifies the peer (VerifyConnection) and holds this portal's
	// certificate. The tunnel uses a clone.
	TLS     *tls.Config
	Handler Handler
	Budget  *Budget
	// Idle is how long the tunnel stays without a stream or flow; 0 is for
	// ever. The TLS client closes it, so the smaller value counts only there.
	Idle time.Duration
	Log  *slog.Logger
}

// Tunnel is one tunnel. Its methods are safe for concurrent use.
type Tunnel struct {
	cfg Config
}

// Totals is what one stream carried, in bytes of the application.
type Totals struct {
	Sent     uint64 // acknowledged: the far application's socket has them
	Received uint64 // written to the application here
}

// Stats is a snapshot for "status".
type Stats struct {
	Up        bool          // a carrier is joined and proven
	RTT       time.Duration // smoothed, of the fastest carrier; 0: not measured yet
	Carriers  int
	Streams   int
	Flows     int
	Sent      uint64 // bytes of frames, carrier overhead included, TLS excluded
	Received  uint64
	Opened    uint64    // streams and flows opened by either side since the start
	Refused   uint64    // of these, how many were refused here
	Drops     uint64    // datagrams dropped here because a queue was full
	Stray     uint64    // frames for streams that are not open
	Buffered  int64     // bytes held or promised, see Budget
	IdleSince time.Time // zero while a stream or flow is open
}

// New returns a tunnel; Run makes it live.
func New(cfg Config) *Tunnel {
	panic("tunnel: the body follows")
}

// Run dials carrier 0 and serves the tunnel until ctx ends, either side closes
// it, or the last carrier is lost. It returns nil when ctx ended or the tunnel
// closed for being idle, else an *EndError or the error of the dial. When it
// returns, everything the tunnel started has stopped.
func (t *Tunnel) Run(ctx context.Context) error {
	panic("tunnel: the body follows")
}

// Up is closed when the first carrier is joined and proven.
func (t *Tunnel) Up() <-chan struct{} {
	panic("tunnel: the body follows")
}

// Done is closed when the tunnel accepts nothing more; Run returns soon after.
func (t *Tunnel) Done() <-chan struct{} {
	panic("tunnel: the body follows")
}

// Peer returns the peer's certificate as TLS proved it, nil before Up.
func (t *Tunnel) Peer() *x509.Certificate {
	panic("tunnel: the body follows")
}

// Close ends the tunnel: it tells the peer the reason and resets what is open.
func (t *Tunnel) Close(reason wire.Reason, text string) {
	panic("tunnel: the body follows")
}

// OpenStream opens a stream under a grant and carries app until both halves
// have ended. It blocks all the while and closes app in the end, with a reset
// where the stream was cut short; the error is then an *EndError. If the error
// is ErrClosed or that of a ctx that ended before a carrier was up, app was
// not touched and is still open. signed is the whole grant; the tunnel sends it
// only as often as the peer needs it. source is told to the exit, which may
// tell it to the target (PROXY protocol); the zero value says there is none.
func (t *Tunnel) OpenStream(ctx context.Context, grant wire.GrantID, signed []byte, source netip.AddrPort, app net.Conn) (Totals, error) {
	panic("tunnel: the body follows")
}

// OpenFlow opens a flow with its first datagram. sink.Datagram is called for
// each datagram of the peer, sink.Ended once, when the flow is over.
func (t *Tunnel) OpenFlow(ctx context.Context, grant wire.GrantID, signed []byte, source netip.AddrPort, first []byte, sink Sink) (*Flow, error) {
	panic("tunnel: the body follows")
}

// Sink takes what a flow brings.
type Sink interface {
	// Datagram takes one datagram. b is borrowed until it returns; it must
	// not block, for it holds up the carrier.
	Datagram(b []byte)
	// Ended tells that the flow is over and why; nil after Flow.Close. It must
	// not block and must not call back into the tunnel.
	Ended(err error)
}

// Flow is the entry's end of a forwarded UDP association.
type Flow struct{}

// Send sends one datagram of at most wire.MaxDatagram bytes. It reports false
// if the datagram was dropped: too long, the queue full, or the flow over.
func (f *Flow) Send(b []byte) bool {
	panic("tunnel: the body follows")
}

// Close ends the flow. The owner calls it when the flow was idle too long.
func (f *Flow) Close(reason wire.Reason) {
	panic("tunnel: the body follows")
}

// Probe asks the peer to check a grant and dial its target, and to report. It
// returns nil and the peer's words about the target if it could be reached,
// else an *EndError.
func (t *Tunnel) Probe(ctx context.Context, grant wire.GrantID, signed []byte) (string, error) {
	panic("tunnel: the body follows")
}

// Ping measures one round trip to the peer on the carrier that is used least.
func (t *Tunnel) Ping(ctx context.Context) (time.Duration, error) {
	panic("tunnel: the body follows")
}

// CutGrant resets every stream and flow of a grant, opened by either side, and
// forgets the grant. It returns how many there were. The owner takes the grant
// from its Handler first, so that nothing is opened under it afterwards.
func (t *Tunnel) CutGrant(id wire.GrantID, reason wire.Reason) int {
	panic("tunnel: the body follows")
}

// Stats returns a snapshot.
func (t *Tunnel) Stats() Stats {
	panic("tunnel: the body follows")
}
