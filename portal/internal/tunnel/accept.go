package tunnel

import (
	"context"
	"errors"
	"fmt"

	"github.com/netport/netport/portal/internal/carrier/rawio"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// accept takes the peer's OPEN: it refuses at once what exceeds the limits, and
// leaves the rest to the Handler. An OPEN of a number that was opened means
// nothing: the peer could not know that it had arrived.
func (t *Tunnel) accept(l *link, id uint32, m wire.Open) error {
	t.mu.Lock()
	switch {
	case !t.seen.mine(id):
		t.mu.Unlock()
		return fmt.Errorf("%w: the number is not the peer's", wire.ErrMalformed)
	case !t.seen.use(id) || t.over:
		t.mu.Unlock()
		return nil
	case len(t.ends) >= 2*maxStreams:
		// A refused number stays taken until the peer has answered the RESET.
		t.mu.Unlock()
		return fmt.Errorf("%w: %d streams at once", wire.ErrMalformed, 2*maxStreams)
	}
	t.asked = false
	ctx, cancel := context.WithCancel(t.ctx)
	e := t.accepted(l, id, m, cancel)
	// What the frame holds is borrowed, and the Handler takes its time.
	m.Data = nil
	m.Signed = append([]byte(nil), m.Signed...)
	busy := len(t.ends) >= maxStreams || t.pending >= maxPending || t.budget.full()
	draining := t.drained != nil
	if len(m.Signed) == 0 {
		m.Signed = t.grants[m.Grant]
	}
	t.addLocked(id, e)
	if !busy && !draining {
		t.pending++
	}
	t.mu.Unlock()
	var why *EndError
	switch {
	case draining:
		why = &EndError{Reason: wire.ReasonShutdown, Text: "the portal is stopping"}
	case busy:
		t.busy.Do(func() {
			t.cfg.Log.Warn("streams are refused until others end", "streams", maxStreams, "dials", maxPending, "held", t.budget.Used())
		})
		why = &EndError{Reason: wire.ReasonBusy, Text: "too many streams or too little memory"}
	}
	if why != nil {
		cancel()
		t.order.begin(id)
		t.refuse(e, why)
		return nil
	}
	if p, ok := e.(*pipe); ok {
		p.mu.Lock()
		p.accountLocked()
		p.mu.Unlock()
	}
	from := From{l.conn.Peer(), l.direct}
	t.tasks.Go(func() {
		defer cancel()
		t.serve(ctx, from, id, e, m)
	})
	return nil
}

// accepted returns this side's end of what the peer opens.
func (t *Tunnel) accepted(l *link, id uint32, m wire.Open, cancel context.CancelFunc) end {
	if m.Kind == wire.OpenStream {
		p := newPipe(t, l, id, m.Grant, stream.New(id, m.Limit, wire.FirstLimit))
		p.cancel = cancel
		return p
	}
	f := newFlow(t, id, m.Grant)
	f.cancel = cancel
	f.probe = m.Kind == wire.OpenProbe
	if !f.probe {
		f.hold(m.Data)
	}
	return f
}

// serve has the Handler dial, and carries what it dialled until it ends.
func (t *Tunnel) serve(ctx context.Context, from From, id uint32, e end, m wire.Open) {
	t.order.wait(ctx, id)
	begun := func() { t.order.begin(id) }
	conn, err := t.cfg.Handler.Open(WithBegun(ctx, begun), from, m)
	begun()
	t.mu.Lock()
	t.pending--
	if err == nil && len(m.Signed) > 0 && len(t.grants) < maxGrants && !t.over {
		t.grants[m.Grant] = m.Signed
	}
	t.mu.Unlock()
	if err != nil {
		t.refuse(e, t.refusal(m, err))
		return
	}
	switch e := e.(type) {
	case *pipe:
		e.enter()
		if !e.connect(conn) {
			abort(conn) // the stream was reset meanwhile: a plain close would say that it was whole
			return
		}
		src := newSource()
		_, _ = e.carry(rawio.NewReader(conn, src), src)
	case *Flow:
		if m.Kind == wire.OpenProbe {
			text := conn.RemoteAddr().String()
			linger(conn, -1) // an ordinary end: nothing was to be carried
			conn.Close()
			e.cut(&EndError{Text: text}, true)
			return
		}
		e.enter()
		e.serve(conn)
	}
}

// refusal turns a Handler's error into what the peer is told.
func (t *Tunnel) refusal(m wire.Open, err error) *EndError {
	var why *EndError
	if errors.As(err, &why) {
		return why
	}
	if errors.Is(err, context.Canceled) { // the peer gave up, or the tunnel ends: nobody failed
		return &EndError{Reason: wire.ReasonShutdown}
	}
	t.cfg.Log.Error("open under a grant", "grant", m.Grant.String(), "error", err)
	return &EndError{Reason: wire.ReasonInternal}
}

// refuse ends what was to be opened. The Handler has logged why it refused.
func (t *Tunnel) refuse(e end, why *EndError) {
	t.refused.Add(1)
	e.cut(why, true)
}
