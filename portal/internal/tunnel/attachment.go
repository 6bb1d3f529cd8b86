package tunnel

import (
	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// attachment is a stream's place on one carrier, and the Source that the carrier
// knows it by. When the stream leaves, its attachment stays behind with what the
// carrier still has in its hands. The pipe's lock guards it.
type attachment struct {
	p       *pipe
	link    *link
	lane    carrier.Lane
	first   []byte // RESUME, with OPEN in front of it where that may be lost: before all else
	sending bool   // the carrier has a frame of the stream
	lent    bool   // and the stream has left it to the carrier
	loan    stream.Loan
}

// attachLocked gives the stream a place on a carrier.
func (p *pipe) attachLocked(l *link) {
	p.at = &attachment{p: p, link: l}
	p.at.lane = l.conn.Lane(p.id, p.at)
	l.streams.Add(1)
}

// leaveLocked takes the stream off its carrier, if it has one.
func (p *pipe) leaveLocked() {
	a := p.at
	if a == nil {
		return
	}
	p.lendLocked()
	a.lane.Close()
	a.link.detach(p.id, true)
	p.at = nil
	p.reset = nil // it is said again
	p.accountLocked()
}

// lendLocked ends an epoch on the carrier, which may still read a frame.
func (p *pipe) lendLocked() {
	loan := p.st.Leave()
	if a := p.at; a.sending && !a.lent {
		a.lent, a.loan = true, loan
		p.t.budget.add(int64(loan.Cost()))
	}
}

// detach takes a stream off the carrier. What may still come of it there is
// remembered to be late.
func (l *link) detach(id uint32, late bool) {
	if late {
		l.remember(id)
	}
	if l.streams.Add(-1) == 0 && (l.silent.Load() || l.retired.Load()) {
		l.t.wake() // nothing keeps it
	}
}

// Urgent implements carrier.Source.
func (a *attachment) Urgent(b []byte) []byte {
	p := a.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at != a || p.mine && !p.opened {
		return b
	}
	if a.first != nil {
		b = append(b, a.first...)
		a.first = nil
	}
	if p.st.AckOwed() {
		b = wire.AppendFrame(b, p.id, p.st.Ack())
		p.accountLocked()
	}
	if p.reset != nil {
		b = append(b, p.reset...)
		p.reset = nil
	}
	p.settleLocked()
	return b
}

// Next implements carrier.Source.
func (a *attachment) Next() (frame []byte, more bool) {
	p := a.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.at != a:
		return nil, false
	case p.mine && !p.opened:
		p.opened = true
		return p.open, p.st.Pending()
	case a.first != nil:
		frame, a.first = a.first, nil
		return frame, p.st.Pending()
	}
	if frame = p.st.Next(); frame != nil {
		a.sending = true
	}
	return frame, p.st.Pending()
}

// Wrote implements carrier.Source.
func (a *attachment) Wrote() {
	p := a.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !a.sending:
		return
	case a.lent:
		p.t.budget.add(-int64(a.loan.Cost()))
		a.loan.Return()
		a.lent, a.loan = false, stream.Loan{}
	default:
		p.st.Wrote()
		p.accountLocked()
	}
	a.sending = false
}

// write has the carrier write what waits, in this goroutine if it can.
func (p *pipe) write() {
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	if at != nil {
		at.lane.Write()
	}
}
