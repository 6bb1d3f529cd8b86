package tunnel

import (
	"fmt"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// moveBurst is how many moves of one stream the peer may cause at once, and
	// moveEvery how often from then on: each may cost a window's bytes.
	moveBurst = 64
	moveEvery = 250 * time.Millisecond
)

// allowance is a bound on how often something may be done.
type allowance struct {
	used int
	at   time.Time
}

// take reports whether it may be done once more.
func (a *allowance) take(now time.Time) bool {
	if n := int(now.Sub(a.at) / moveEvery); n > 0 {
		a.used = max(a.used-min(n, moveBurst), 0)
		a.at = now
	}
	if a.used >= moveBurst {
		return false
	}
	a.used++
	return true
}

// onLocked reports whether the stream is attached to l.
func (p *pipe) onLocked(l *link) bool { return p.at != nil && p.at.link == l }

// lateLocked takes a frame from a carrier that the stream is not attached to.
func (p *pipe) lateLocked(epoch uint32) error {
	if epoch > p.st.Epoch() {
		return fmt.Errorf("%w: the stream is on another carrier", wire.ErrMalformed)
	}
	return nil
}

// place implements end. Only the opener moves the stream; the other side can ask
// for it on a better carrier.
func (p *pipe) place() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return
	}
	var now *link
	if p.at != nil {
		now = p.at.link
	}
	l := p.t.pick(wire.CarrierTCP, now)
	if l == nil && now == nil && p.st.WasReset() {
		l = p.t.best(wire.CarrierTCP) // an end may be told on any
	}
	switch {
	case l == nil || l == now:
	case p.st.WasReset():
		p.resetOnLocked(l)
	case p.mine:
		p.moveLocked(l)
	case p.asked != l && (now == nil || now.rank(wire.CarrierTCP) >= rankRetired):
		p.asked = l
		l.conn.Send(wire.AppendFrame(nil, p.id, p.st.Nudge()))
	}
}

// resetOnLocked says a RESET again that the peer has not answered.
func (p *pipe) resetOnLocked(l *link) {
	if p.asked == l || !p.st.ResetAgain() {
		return
	}
	p.asked = l
	// Without the text: thousands may be said at once, and must not look like
	// answers that the peer does not read.
	l.conn.Send(wire.AppendFrame(nil, p.id, wire.Reset{Reason: p.why.Reason}))
}

// moveLocked moves the opener's stream to l.
func (p *pipe) moveLocked(l *link) {
	p.leaveLocked()
	p.attachLocked(l)
	if !p.opened {
		p.at.lane.Ready()
		return
	}
	if p.account != nil {
		p.account.Moved()
	}
	m := p.st.Move()
	p.at.first = wire.AppendFrame(append([]byte(nil), p.open...), p.id, m)
	p.at.lane.Urgent()
}

// nudgedLocked takes an ACK from a carrier that the stream is not attached to:
// the peer, who did not open it, asks for it there.
func (p *pipe) nudgedLocked(l *link, m wire.Ack) error {
	if m.Epoch == p.st.Epoch() && p.mine && !p.gone && !p.st.WasReset() && !p.st.Moving() && p.moves.take(time.Now()) {
		p.moveLocked(l)
		return nil
	}
	return p.lateLocked(m.Epoch)
}

// resume takes the peer's RESUME.
func (p *pipe) resume(l *link, m wire.Resume) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.trying {
		p.still.Wait() // what comes next must not overtake those bytes
	}
	switch {
	case m.Epoch < p.st.Epoch() || p.gone:
		return nil
	case p.mine:
		return p.movedLocked(l, m)
	case !p.t.mayTake(l):
		p.cutLocked(notDirect(), true)
		p.resetOnLocked(l)
		return nil
	case m.Epoch > p.st.Epoch() && !p.moves.take(time.Now()):
		return fmt.Errorf("%w: RESUME too often", wire.ErrMalformed)
	}
	p.asked = nil
	if p.st.WasReset() {
		p.leaveLocked()
		if !p.st.ResetAgain() { // the peer's RESET was quicker, and waits for an answer
			l.conn.Send(wire.AppendFrame(nil, p.id, wire.Reset{}))
		}
		p.resetOnLocked(l)
		p.settleLocked()
		return nil
	}
	if p.onLocked(l) { // its OPEN was said again there, or it never left
		p.lendLocked()
	} else {
		if p.at != nil {
			// The opener may have found it silent, and this side not yet: then
			// who writes there waits for its socket.
			p.at.link.doubt()
		}
		p.leaveLocked()
		p.attachLocked(l)
	}
	answer, ok, err := p.st.Follow(m)
	if err != nil || !ok {
		return err
	}
	if p.account != nil {
		p.account.Moved()
	}
	p.at.first = wire.AppendFrame(nil, p.id, answer)
	p.goOnLocked()
	return nil
}

// movedLocked takes the answer to this side's RESUME.
func (p *pipe) movedLocked(l *link, m wire.Resume) error {
	if !p.onLocked(l) {
		return fmt.Errorf("%w: RESUME was not asked for here", wire.ErrMalformed)
	}
	if ok, err := p.st.Moved(m); err != nil || !ok {
		return err
	}
	p.open = nil
	p.goOnLocked()
	return nil
}

// goOnLocked sends what waits after a move.
func (p *pipe) goOnLocked() {
	p.at.lane.Urgent()
	if p.st.Pending() {
		p.at.lane.Ready()
	}
	p.room.Signal()
}

// lost implements end.
func (p *pipe) lost(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == l {
		p.asked = nil
	}
	if !p.onLocked(l) {
		return
	}
	p.leaveLocked()
	// The answer to a RESET may be lost: then the peer says it again.
	p.settleLocked()
}
