package tunnel

import (
	"context"
	"net"
	"sync"

	"github.com/netport/netport/portal/internal/carrier/rawio"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// pipe joins an application's connection to a stream.
//
// Its lock guards the stream and everything below it. The carriers' readers
// (frame), their writers (attachment), the goroutine that reads the application
// (pump), the one that writes to it when the socket is full (drain) and the
// tunnel's loop (place) all go through it. It may be held when the writer's
// or the tunnel's lock is taken, never the other way round.
type pipe struct {
	t      *Tunnel
	id     uint32
	grant  wire.GrantID
	mine   bool               // opened by this side
	cancel context.CancelFunc // of the Handler's call; nil when mine

	mu       sync.Mutex
	room     sync.Cond // the stream takes more, or has ended
	still    sync.Cond // nobody writes to app what a carrier has brought
	st       *stream.Stream
	at       *attachment   // nil: the stream waits for a carrier
	app      net.Conn      // nil until the target is connected
	direct   *rawio.Writer // of app; nil if it cannot be written directly
	open     []byte        // the OPEN frame, until the peer is known to have it
	opened   bool          // a carrier has taken it
	reset    []byte        // a RESET frame that waits to be sent
	draining bool          // somebody writes to app, or is about to
	trying   bool          // it is a carrier's reader, which does not wait for app
	accepted bool          // the peer has sent an ACK
	ackWaits bool          // in the tunnel's ackTimer
	held     int64         // what the budget was told
	gone     bool          // the tunnel has forgotten the number
	why      *EndError     // of the reset
	ended    chan struct{} // closed when both halves have ended, or reset

	account Account // nil: none yet, or it has left

	asked *link // where a move was asked for, or a RESET said, apart from at
	moves allowance
}

func newPipe(t *Tunnel, l *link, id uint32, grant wire.GrantID, st *stream.Stream) *pipe {
	p := &pipe{t: t, id: id, grant: grant, st: st, ended: make(chan struct{})}
	p.room.L = &p.mu
	p.still.L = &p.mu
	p.attachLocked(l)
	return p
}

func (p *pipe) grantID() wire.GrantID { return p.grant }
func (p *pipe) isFlow() bool          { return false }

// frame implements end.
func (p *pipe) frame(l *link, h wire.FrameHeader, body []byte) error {
	switch h.Type {
	case wire.FrameData:
		m, err := wire.ParseData(body)
		if err != nil {
			return err
		}
		return p.data(l, m)
	case wire.FrameAck:
		m, err := wire.ParseAck(body)
		if err != nil {
			return err
		}
		return p.ack(l, m)
	case wire.FrameFin:
		m, err := wire.ParseFin(body)
		if err != nil {
			return err
		}
		return p.fin(l, m)
	case wire.FrameResume:
		m, err := wire.ParseResume(body)
		if err != nil {
			return err
		}
		return p.resume(l, m)
	case wire.FrameReset:
		m, err := wire.ParseReset(body)
		if err != nil {
			return err
		}
		p.peerResets(l, m)
		return nil
	}
	return wire.ErrMalformed
}

// data delivers bytes: to the socket at once as far as they fit, the rest to
// the queue.
func (p *pipe) data(l *link, m wire.Data) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.onLocked(l) {
		return p.lateLocked(m.Epoch)
	}
	deliver, err := p.st.Receive(m)
	if err != nil || !deliver {
		return err
	}
	rest := m.Data
	if p.direct != nil && !p.draining && !p.st.Queued() {
		p.draining, p.trying = true, true
		p.mu.Unlock()
		n, err := p.direct.TryWrite(rest)
		p.mu.Lock()
		p.draining, p.trying = false, false
		p.still.Broadcast()
		p.wroteLocked(n, err, false)
		rest = rest[n:]
	}
	if len(rest) > 0 {
		p.st.Queue(rest)
		p.drainLocked()
	}
	return nil
}

func (p *pipe) ack(l *link, m wire.Ack) error {
	p.mu.Lock()
	if !p.onLocked(l) {
		defer p.mu.Unlock()
		return p.nudgedLocked(l, m)
	}
	err := p.st.ReceiveAck(m)
	p.accountLocked()
	p.room.Signal()
	p.settleLocked()
	first := p.mine && !p.accepted
	p.accepted = true
	p.open = nil
	p.mu.Unlock()
	if first {
		p.t.peerHolds(p.grant, true)
	}
	return err
}

func (p *pipe) fin(l *link, m wire.Fin) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.onLocked(l) {
		return p.lateLocked(m.Epoch)
	}
	deliver, err := p.st.ReceiveFin(m)
	if err == nil && deliver {
		p.drainLocked()
	}
	return err
}

// ackLaterLocked has the stream's ACK sent soon, with what its stream or
// others have to send by then.
func (p *pipe) ackLaterLocked() {
	if !p.ackWaits && p.st.AckOwed() {
		p.ackWaits = true
		p.t.acks.add(p)
	}
}

// accountLocked tells the budget what the stream holds now.
func (p *pipe) accountLocked() {
	if held := p.st.Held(); held != p.held && !p.gone {
		p.t.budget.add(held - p.held)
		p.held = held
	}
}
