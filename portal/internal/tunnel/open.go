package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/portal/internal/carrier/rawio"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// Totals is what one stream carried, in bytes of the application.
type Totals struct {
	Sent     uint64 // the far application's socket has them
	Received uint64 // written to the application here
}

// OpenStream opens a stream under a grant and carries app until both halves
// have ended. It blocks all the while and closes app in the end, with a reset
// where the stream was cut short; the error is then an *EndError. If the error
// is ErrClosed, or that of a ctx that ended before a carrier was up, app was
// not touched and is still open; ctx plays no part afterwards. signed is the
// whole grant; the tunnel sends it only as often as the peer needs it. source
// is told to the exit, which may tell it to the target (PROXY protocol); the
// zero value says that there is none.
func (t *Tunnel) OpenStream(ctx context.Context, grant wire.GrantID, signed []byte, source netip.AddrPort, app net.Conn) (Totals, error) {
	window := t.budget.window()
	var p *pipe
	err := t.open(ctx, grant, signed, wire.CarrierTCP, func(l *link, id uint32, signed []byte) end {
		p = newPipe(t, l, id, grant, stream.New(id, wire.FirstLimit, uint64(window)))
		p.mine = true
		p.joinLocked(app) // nobody else has p yet
		p.open = wire.AppendFrame(nil, id, wire.Open{Kind: wire.OpenStream, Grant: grant, Signed: signed, Limit: uint64(window), Source: source})
		return p
	})
	if err != nil {
		var end *EndError
		if errors.As(err, &end) {
			abort(app)
		}
		return Totals{}, err
	}
	p.enter()
	src := newSource()
	reader := rawio.NewReader(app, src)
	p.mu.Lock()
	p.accountLocked()
	p.mu.Unlock()
	// What the application has said already goes with the OPEN. It is not
	// waited for: in many protocols the server speaks first.
	if n, err := reader.TryRead(); n > 0 || err != nil {
		if !p.took(src, n, err) {
			return p.finish()
		}
	} else {
		p.write()
	}
	return p.carry(reader, src)
}

// open registers what build returns under the next number of this side. signed
// is nil for build if the peer holds the grant; l is the carrier for what prefers that
// kind: streams TCP, flows QUIC.
func (t *Tunnel) open(ctx context.Context, grant wire.GrantID, signed []byte, kind wire.CarrierKind, build func(l *link, id uint32, signed []byte) end) error {
	for {
		if err := t.wait(ctx); err != nil {
			return err
		}
		t.mu.Lock()
		l := t.pickLocked(kind, nil)
		if kind == wire.CarrierQUIC {
			t.flowsLocked(time.Now())
			l = t.flowAt.Load()
		}
		if l == nil && !t.over {
			t.mu.Unlock()
			continue // it was lost in this moment
		}
		err := t.openLocked(l, grant, signed, build)
		t.mu.Unlock()
		if err == nil {
			Begun(ctx)
		}
		return err
	}
}

func (t *Tunnel) openLocked(l *link, grant wire.GrantID, signed []byte, build func(l *link, id uint32, signed []byte) end) error {
	switch {
	case t.drained != nil:
		return &EndError{Reason: wire.ReasonShutdown}
	case t.over || t.asked || t.nextID >= 1<<32-2:
		return ErrClosed
	case len(t.ends) >= maxStreams || t.budget.full():
		t.refused.Add(1)
		return &EndError{Reason: wire.ReasonBusy, Text: "too many streams or too little memory in this tunnel"}
	}
	if t.holds[grant] {
		signed = nil
	}
	id := t.nextID
	t.nextID += 2
	t.addLocked(id, build(l, id, signed))
	return nil
}

// addLocked registers an end.
func (t *Tunnel) addLocked(id uint32, e end) {
	t.ends[id] = e
	if !e.isFlow() {
		t.streams++
	}
	t.opened.Add(1)
	t.idleSince = time.Time{}
	if t.idleTimer != nil {
		t.idleTimer.Stop()
	}
	if len(t.ends) == 1 || len(t.wantsLocked()) > 0 {
		t.wake()
	}
}

// forget frees the number of an end: no frame of it comes or goes any more.
func (t *Tunnel) forget(id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.ends[id]
	if !ok {
		return
	}
	delete(t.ends, id)
	if !e.isFlow() {
		t.streams--
		if t.streams == 0 && t.drained != nil {
			select {
			case <-t.drained:
			default:
				close(t.drained)
			}
		}
	}
	if len(t.ends) == 0 {
		t.restLocked()
	}
}

// restLocked notes that nothing is open, and sets the idle timer.
func (t *Tunnel) restLocked() {
	t.idleSince = time.Now()
	if t.cfg.Idle <= 0 || t.over {
		return
	}
	if t.idleTimer == nil {
		t.idleTimer = time.AfterFunc(t.cfg.Idle, t.askIdle)
	} else {
		t.idleTimer.Reset(t.cfg.Idle)
	}
}

// askIdle asks the peer to end the idle tunnel. Until the peer opens something
// this side does not, for the peer may be gone when it arrives.
func (t *Tunnel) askIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.asked || len(t.ends) > 0 || len(t.links) == 0 {
		return
	}
	t.asked = true
	t.links[0].conn.Send(wire.AppendFrame(nil, 0, wire.TunnelClose{Reason: wire.ReasonIdle}))
}

// peerHolds notes whether the peer holds a grant whole, so that its id is
// enough in the next OPEN.
func (t *Tunnel) peerHolds(id wire.GrantID, holds bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !holds:
		delete(t.holds, id)
	case len(t.holds) < maxGrants:
		t.holds[id] = true
	}
}
