package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxHeld and maxHeldBytes bound the datagrams that wait while the exit
	// opens its socket.
	maxHeld      = 16
	maxHeldBytes = 128 << 10
)

// Sink takes what a flow brings.
type Sink interface {
	// Datagram takes one datagram. b is borrowed until it returns; it must
	// not block, for it holds up the carrier.
	Datagram(b []byte)
	// Ended tells that the flow is over and why, once. It must not block and
	// must not call back into the tunnel or the flow.
	Ended(err error)
}

// Flow is one end of a forwarded UDP association, or of a probe. Datagrams are
// sent once, whole, or dropped and counted.
//
// It is attached to no carrier. Until the peer has answered, it may not know
// the flow: OPEN is said again on another carrier, and over QUIC, where a
// datagram could overtake it, the first ones follow it on the same way.
type Flow struct {
	t     *Tunnel
	id    uint32
	grant wire.GrantID
	sink  Sink // on the opener's side
	probe bool

	cancel context.CancelFunc // of the Handler's call, on the other side

	out, in atomic.Uint64 // bytes of datagrams that were sent on, to the peer and from it

	mu       sync.Mutex
	open     []byte // the OPEN frame, until the peer has answered
	behind   int    // datagrams that followed it
	said     *link  // where OPEN, or our RESET, was said
	reset    wire.Reset
	conn     net.Conn // on the other side, once it is dialled
	held     [][]byte // datagrams that wait for conn
	heldLen  int
	account  Account // nil: none yet, or it has left
	over     bool
	sent     bool // our RESET
	received bool // the peer's RESET
}

func newFlow(t *Tunnel, id uint32, grant wire.GrantID) *Flow {
	return &Flow{t: t, id: id, grant: grant}
}

func (f *Flow) grantID() wire.GrantID { return f.grant }
func (f *Flow) isFlow() bool          { return true }

// OpenFlow opens a flow with its first datagram. sink.Datagram is called for
// each datagram of the peer, sink.Ended once, when the flow is over. ctx ends
// the wait for a carrier.
func (t *Tunnel) OpenFlow(ctx context.Context, grant wire.GrantID, signed []byte, source netip.AddrPort, first []byte, sink Sink) (*Flow, error) {
	if len(first) > wire.MaxDatagram {
		return nil, &EndError{Reason: wire.ReasonProtocol, Text: "a datagram has at most 65507 bytes"}
	}
	open := wire.Open{Kind: wire.OpenFlow, Source: source, Data: first}
	f, taken, err := t.openFlow(ctx, grant, signed, open, sink)
	if err != nil {
		return nil, err
	}
	if !taken {
		// The peer never hears of the number.
		f.mu.Lock()
		f.over = true
		f.mu.Unlock()
		t.forget(f.id)
		return nil, &EndError{Reason: wire.ReasonBusy, Text: "the carrier's queue is full"}
	}
	f.out.Add(uint64(len(first)))
	f.enter()
	return f, nil
}

// openFlow registers a flow or a probe and says OPEN. It reports whether the
// carrier has taken that.
func (t *Tunnel) openFlow(ctx context.Context, grant wire.GrantID, signed []byte, open wire.Open, sink Sink) (f *Flow, taken bool, err error) {
	open.Grant = grant
	var on *link
	var frame []byte
	err = t.open(ctx, grant, signed, wire.CarrierQUIC, func(l *link, id uint32, signed []byte) end {
		f = newFlow(t, id, grant)
		f.sink = sink
		f.probe = open.Kind == wire.OpenProbe
		open.Signed = signed
		frame = wire.AppendFrame(nil, id, open)
		on = l
		f.open, f.said = frame, on
		return f
	})
	if err != nil {
		return nil, false, err
	}
	return f, on.conn.Try(frame), nil
}

// Send sends one datagram of at most wire.MaxDatagram bytes. It reports false
// if the datagram was dropped: too long, no carrier, the queue full, or the flow
// over.
func (f *Flow) Send(b []byte) bool {
	l := f.t.flowAt.Load()
	f.mu.Lock()
	over := f.over
	behind := false
	if f.open != nil && !over && l != nil {
		f.openOnLocked(l)
		behind = f.behind < maxHeld && l.conn.Kind() == wire.CarrierQUIC
	}
	if behind {
		f.behind++
	}
	f.mu.Unlock()
	switch {
	case over || l == nil || len(b) > wire.MaxDatagram:
		f.t.drops.Add(1)
		return false
	case behind && l.conn.Try(wire.AppendFrame(nil, f.id, wire.Datagram{Data: b})):
		f.out.Add(uint64(len(b)))
		return true
	case behind:
		f.t.drops.Add(1)
		return false
	}
	if !l.conn.Datagram(f.id, b) {
		return false
	}
	f.out.Add(uint64(len(b)))
	return true
}

// openOnLocked says OPEN on a carrier, if it has not been said there.
func (f *Flow) openOnLocked(l *link) {
	if f.said != l && l.conn.Try(f.open) {
		f.said = l
	}
}

// place implements end: what the peer has not answered is said again on another
// carrier.
func (f *Flow) place() {
	l, any := f.t.flowAt.Load(), f.t.best(wire.CarrierQUIC)
	f.mu.Lock()
	defer f.mu.Unlock()
	if l == nil && f.sent {
		l = any // an end may be told on any
	}
	switch {
	case l == nil || f.said == l:
	case f.sent && !f.received:
		f.said = l
		l.conn.Send(wire.AppendFrame(nil, f.id, f.reset))
	case f.open != nil && !f.over:
		f.openOnLocked(l)
	}
}

// lost implements end.
func (f *Flow) lost(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said == l {
		f.said = nil
	}
}

// Close ends the flow; Sink.Ended is called. The owner calls it when the flow
// was idle for too long.
func (f *Flow) Close(reason wire.Reason) { f.cut(&EndError{Reason: reason}, true) }

// hold keeps a datagram until the socket is there.
func (f *Flow) hold(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holdLocked(b)
}

func (f *Flow) holdLocked(b []byte) {
	if len(f.held) >= maxHeld || f.heldLen+len(b) > maxHeldBytes {
		f.t.drops.Add(1)
		return
	}
	f.held = append(f.held, append([]byte(nil), b...))
	f.heldLen += len(b)
}

// serve carries datagrams from the target until reading it fails: because it
// was idle, as the Handler's connection decides, or because the flow is over.
func (f *Flow) serve(conn net.Conn) {
	defer conn.Close()
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		return
	}
	f.conn = conn
	for _, b := range f.held {
		f.write(b)
	}
	f.held = nil
	f.mu.Unlock()
	// The socket cannot be asked how long the next datagram is.
	f.t.budget.add(wire.MaxDatagram)
	defer f.t.budget.add(-wire.MaxDatagram)
	buf := make([]byte, wire.MaxDatagram)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			f.cut(flowEnd(err), true)
			return
		}
		f.Send(buf[:n])
	}
}

// flowEnd says what the end of a flow's socket means.
func flowEnd(err error) *EndError {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &EndError{Reason: wire.ReasonIdle}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &EndError{Reason: wire.ReasonTargetRefused}
	}
	return &EndError{Reason: wire.ReasonTargetUnreached}
}

// write sends a datagram to the target, or drops it. A UDP socket does not
// wait for its peer, so the carrier's reader may call this. An error that lasts
// shows in the next Read.
func (f *Flow) write(b []byte) {
	if _, err := f.conn.Write(b); err != nil {
		f.t.drops.Add(1)
		return
	}
	f.in.Add(uint64(len(b)))
}

// frame implements end.
func (f *Flow) frame(l *link, h wire.FrameHeader, body []byte) error {
	switch h.Type {
	case wire.FrameDatagram:
		m, err := wire.ParseDatagram(body)
		if err != nil || f.probe {
			return wire.ErrMalformed
		}
		f.datagram(m.Data)
		return nil
	case wire.FrameReset:
		m, err := wire.ParseReset(body)
		if err != nil {
			return err
		}
		f.peerResets(l, m)
		return nil
	}
	return wire.ErrMalformed
}

func (f *Flow) datagram(b []byte) {
	f.mu.Lock()
	first := f.open != nil
	f.open = nil
	sink := f.sink
	switch {
	case f.over:
		sink = nil
	case sink != nil:
	case f.conn == nil:
		f.holdLocked(b)
	default:
		f.write(b)
	}
	f.mu.Unlock()
	if sink != nil {
		if first {
			f.t.peerHolds(f.grant, true)
		}
		f.in.Add(uint64(len(b)))
		sink.Datagram(b)
	}
}

func (f *Flow) peerResets(l *link, m wire.Reset) {
	if f.sink != nil && m.Reason == wire.ReasonNotGranted {
		f.t.peerHolds(f.grant, false)
	}
	f.mu.Lock()
	f.received = true
	answer := !f.sent || m != wire.Reset{}
	f.sent = true
	f.mu.Unlock()
	if answer { // also if ours is under way elsewhere
		l.conn.Send(wire.AppendFrame(nil, f.id, wire.Reset{}))
	}
	f.t.forget(f.id)
	f.end(&EndError{Peer: true, Reason: m.Reason, Text: m.Text})
}

// cut implements end.
func (f *Flow) cut(why *EndError, tell bool) {
	if !tell {
		f.t.forget(f.id)
		f.end(why)
		return
	}
	l := f.t.flowAt.Load()
	if l == nil {
		l = f.t.best(wire.CarrierQUIC)
	}
	f.mu.Lock()
	if !f.sent {
		f.sent = true
		f.reset = wire.Reset{Reason: why.Reason, Text: why.Text}
		if f.said = l; l != nil { // else it is said when there is one
			l.conn.Send(wire.AppendFrame(nil, f.id, f.reset))
		}
	}
	f.mu.Unlock()
	f.end(why)
}

// end ends the flow's work.
func (f *Flow) end(why *EndError) {
	f.mu.Lock()
	first := !f.over
	f.over = true
	f.held = nil
	f.open = nil
	conn := f.conn
	if f.account != nil {
		f.account.Leave(f, f.Carried())
		f.account = nil
	}
	f.mu.Unlock()
	if !first {
		return
	}
	if f.cancel != nil {
		f.cancel()
	}
	if conn != nil {
		conn.Close()
	}
	if f.sink != nil {
		f.sink.Ended(why)
	}
}
