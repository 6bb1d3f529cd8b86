package tunnel

import "github.com/netport/netport/proto/wire"

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
	p.leaveAccountLocked()
	p.open = nil
	p.asked = nil
	if p.at != nil {
		p.at.lane.Close()
		p.at.link.detach(p.id, p.at.link.conn.Kind() == wire.CarrierQUIC)
		p.at = nil
	}
	p.t.forget(p.id)
}
