package tunnel

import (
	"io"
	"net"
	"time"

	"github.com/netport/netport/portal/internal/carrier/rawio"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

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
	totals := p.totalsLocked()
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
