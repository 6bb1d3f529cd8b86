package tunnel

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

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

// carry copies between the application and the stream until both halves have
// ended, and closes the application's connection.
func (p *pipe) carry(reader *rawio.Reader, src *source) (Totals, error) {
	p.pump(reader, src)
	return p.finish()
}

// finish waits until the stream has ended and closes the application's
// connection.
func (p *pipe) finish() (Totals, error) {
	<-p.ended
	p.mu.Lock()
	why := p.why
	totals := Totals{Sent: p.st.Acked(), Received: p.st.Written()}
	p.mu.Unlock()
	if why != nil {
		abort(p.app)
		return totals, why
	}
	linger(p.app, -1) // as usual: nothing is missing
	p.app.Close()
	return totals, nil
}

// joinLocked takes the application's connection. Until the stream has ended
// cleanly its close is a reset, where there is such a thing: also the one that
// the system does for a portal that was killed, so that its application cannot
// take a part for the whole.
func (p *pipe) joinLocked(app net.Conn) {
	linger(app, 0)
	p.app = app
	p.direct = rawio.NewWriter(app)
}

// abort closes a connection so that its application learns that something is
// missing: with RST where there is such a thing.
func abort(c net.Conn) {
	linger(c, 0)
	c.Close()
}

// linger sets what a close of the connection does (SO_LINGER): with 0 it is a
// reset.
func linger(c net.Conn, seconds int) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(seconds)
	}
}

// pump reads the application and appends to the stream, as far as the peer
// takes it, until the application ends its half or the stream is over.
func (p *pipe) pump(reader *rawio.Reader, src *source) {
	defer src.Put()
	for {
		if src.room, src.turn = p.waitRoom(); src.room == 0 {
			return
		}
		n, err := reader.Read()
		if !p.took(src, n, err) {
			return
		}
	}
}

// took passes on what a read of the application brought. It reports whether
// reading goes on.
func (p *pipe) took(src *source, n int, err error) bool {
	p.mu.Lock()
	bulk := src.appendTo(p.st, n)
	if err == io.EOF {
		p.st.Finish()
	}
	p.accountLocked()
	at := p.at
	p.mu.Unlock()
	if err != nil && err != io.EOF {
		p.cut(&EndError{Reason: wire.ReasonTargetReset, Text: "an application's connection broke"}, true)
		return false
	}
	switch {
	case at == nil:
	case bulk:
		// Let the writer work beside the reading.
		at.lane.Ready()
	default:
		at.lane.Write()
	}
	return err == nil
}

// waitRoom waits until the peer takes more and there is memory to keep it in,
// and returns how much, and how much of it should be one frame; 0 when the
// stream is over.
func (p *pipe) waitRoom() (room, turn int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.st.WasReset() {
		if room := min(p.st.Room(), p.spareLocked()); room > 0 {
			if p.at != nil {
				return room, p.at.link.conn.Turn()
			}
			return room, wire.MaxData
		}
		p.room.Wait()
	}
	return 0, 0
}

// spareLocked is how much more the stream may keep. While memory is short that
// is little, but never nothing: an ACK for what is kept is sure to come, and
// then the stream goes on.
func (p *pipe) spareLocked() int {
	limit := stream.MaxWindow
	switch {
	case p.t.budget.full():
		limit = stream.SmallWindow
	case p.t.budget.tight(0):
		limit = stream.InitialWindow
	}
	spare := limit - p.st.Kept()
	if p.st.Kept() > 0 && spare < limit/4 {
		return 0 // rather than crumbs
	}
	return spare
}

// connect gives the stream its connection on the accepting side.
func (p *pipe) connect(app net.Conn) bool {
	p.mu.Lock()
	if p.st.WasReset() {
		p.mu.Unlock()
		return false
	}
	p.joinLocked(app)
	p.st.Accept(uint64(p.t.budget.window()))
	p.accountLocked()
	p.drainLocked()
	p.ackLaterLocked()
	p.mu.Unlock()
	return true
}

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

// drainLocked has the queue, and the end behind it, written to the application
// by a goroutine, unless one is at it.
func (p *pipe) drainLocked() {
	if p.draining || p.app == nil || !p.st.Queued() && !p.st.Ended() {
		return
	}
	p.draining = true
	if !p.st.Queued() {
		p.tellEndLocked()
		p.draining = false
		return
	}
	p.t.tasks.Go(p.drain)
}

// drain writes the queue to the application until it is empty.
func (p *pipe) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		b := p.st.Front()
		if len(b) == 0 {
			break
		}
		p.mu.Unlock()
		n, err := p.app.Write(b)
		p.mu.Lock()
		p.wroteLocked(n, err, true)
	}
	if p.st.Ended() {
		p.tellEndLocked()
	}
	p.draining = false
}

// tellEndLocked tells the application that the peer's half has ended. It
// unlocks meanwhile; draining must be set.
func (p *pipe) tellEndLocked() {
	p.mu.Unlock()
	if c, ok := p.app.(interface{ CloseWrite() error }); ok {
		// An application that has closed already does not want to know.
		_ = c.CloseWrite()
	}
	p.mu.Lock()
	p.st.ToldEnd()
	p.ackLaterLocked()
}

// ackLaterLocked has the stream's ACK sent soon, with what its stream or
// others have to send by then.
func (p *pipe) ackLaterLocked() {
	if !p.ackWaits && p.st.AckOwed() {
		p.ackWaits = true
		p.t.acks.add(p)
	}
}

// wroteLocked counts bytes that were written to the application, and has an
// ACK sent when it is time for one.
func (p *pipe) wroteLocked(n int, err error, queued bool) {
	if n > 0 {
		now, rtt := time.Now(), time.Duration(0)
		if p.at != nil {
			rtt = p.at.link.conn.WindowRTT()
		}
		if queued {
			p.st.WroteQueued(n, now, rtt)
		} else {
			p.st.WroteOut(n, now, rtt)
		}
		p.fitWindowLocked()
		switch {
		case p.at == nil:
		case p.st.AckDue():
			p.at.link.conn.Measure(now)
			p.at.lane.Urgent()
		default:
			p.ackLaterLocked()
		}
	}
	if err != nil {
		p.cutLocked(&EndError{Reason: wire.ReasonTargetReset, Text: "an application's connection broke"}, true)
	}
}

// fitWindowLocked lets the window grow with the way's round trip, and shrink
// while memory is short.
func (p *pipe) fitWindowLocked() {
	window := p.st.Window()
	switch {
	case p.t.budget.tight(0):
		p.st.SetWindow(window / 2)
	case p.st.WindowSmall() && !p.t.budget.tight(int(window)):
		p.st.SetWindow(window * 2)
	}
	p.accountLocked()
}

// accountLocked tells the budget what the stream holds now.
func (p *pipe) accountLocked() {
	if held := p.st.Held(); held != p.held && !p.gone {
		p.t.budget.add(held - p.held)
		p.held = held
	}
}

// peerResets takes the peer's RESET, from any carrier. It may say that the peer
// has forgotten the stream, which is an end like another if nothing is missing.
func (p *pipe) peerResets(l *link, m wire.Reset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mine && m.Reason == wire.ReasonNotGranted {
		p.t.peerHolds(p.grant, false)
	}
	if p.gone {
		return
	}
	here := p.onLocked(l)
	if !here {
		p.leaveLocked() // what is under way there is late now
	}
	why := &EndError{Peer: true, Reason: m.Reason, Text: m.Text}
	if m == (wire.Reset{}) && !p.st.WasReset() {
		if p.st.Forgotten() {
			p.accountLocked()
			p.room.Signal()
			p.settleLocked()
			return
		}
		why = &EndError{Peer: true, Reason: wire.ReasonCarrierLost, Text: "the stream is forgotten"}
	}
	answer := p.st.ReceiveReset()
	p.overLocked(why)
	switch {
	case here && answer:
		p.resetLocked(wire.Reset{})
	case !here && m != (wire.Reset{}): // also if ours is under way elsewhere
		l.conn.Send(wire.AppendFrame(nil, p.id, wire.Reset{}))
	}
	p.settleLocked()
}

// cut implements end.
func (p *pipe) cut(why *EndError, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked(why, tell)
}

func (p *pipe) cutLocked(why *EndError, tell bool) {
	if p.gone {
		return
	}
	first := p.st.Reset()
	p.overLocked(why)
	switch {
	case !tell || p.mine && !p.opened:
		// The peer is gone, or never heard of the stream.
		p.forgetLocked()
	case first && p.at != nil:
		p.resetLocked(wire.Reset{Reason: why.Reason, Text: why.Text})
		p.settleLocked()
	}
}

func (p *pipe) resetLocked(m wire.Reset) {
	p.reset = wire.AppendFrame(nil, p.id, m)
	p.at.lane.Urgent()
}

// overLocked ends the pipe's own work after a reset: whoever waits for the
// application or the stream wakes up.
func (p *pipe) overLocked(why *EndError) {
	if p.endedLocked() {
		return
	}
	p.why = why
	close(p.ended)
	if p.cancel != nil {
		p.cancel()
	}
	p.room.Signal()
	if p.app != nil {
		abort(p.app)
	}
	p.accountLocked()
}

func (p *pipe) endedLocked() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// settleLocked forgets the stream once no frame of it can come or go.
func (p *pipe) settleLocked() {
	if p.st.Over() && p.reset == nil {
		p.forgetLocked()
		if !p.endedLocked() {
			close(p.ended)
		}
	}
}

func (p *pipe) forgetLocked() {
	if p.gone {
		return
	}
	p.t.budget.add(-p.held)
	p.held = 0
	p.gone = true
	p.open = nil
	p.asked = nil
	if p.at != nil {
		p.at.lane.Close()
		p.at.link.detach(p.id, p.at.link.conn.Kind() == wire.CarrierQUIC)
		p.at = nil
	}
	p.t.forget(p.id)
}
