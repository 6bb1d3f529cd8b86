package tunnel

import (
	"errors"
	"fmt"

	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// errStray is what a peer gets that sends frames for streams that are not open.
var errStray = errors.New("too many frames for streams that are not open")

// Frame implements carrier.Handler. A peer that breaks the protocol is told
// so, and the whole tunnel is closed: whatever it sends next cannot be trusted
// to mean what it says.
func (l *link) Frame(h wire.FrameHeader, body []byte) error {
	err := l.dispatch(h, body)
	if err == nil {
		return nil
	}
	if !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, stream.ErrProtocol) && !errors.Is(err, errStray) {
		return err
	}
	why := &EndError{Reason: wire.ReasonProtocol, Text: fmt.Sprintf("%v for stream %d: %v", h.Type, h.Stream, err)}
	l.t.cfg.Log.Warn("the peer broke the tunnel's protocol", "carrier", l.conn.Connection(), "error", why.Text)
	l.t.finish(why, why)
	return nil
}

func (l *link) dispatch(h wire.FrameHeader, body []byte) error {
	t := l.t
	switch h.Type {
	case wire.FrameCarrier, wire.FrameClose:
		if h.Stream != 0 {
			return wire.ErrMalformed
		}
		if h.Type == wire.FrameCarrier {
			m, err := wire.ParseAddCarrier(body)
			if err != nil {
				return err
			}
			return t.addCarrier(l, m)
		}
		m, err := wire.ParseTunnelClose(body)
		if err != nil {
			return err
		}
		t.peerCloses(m)
		return nil
	case wire.FrameCandidates:
		m, err := wire.ParseCandidates(body)
		if err != nil || h.Stream != 0 {
			return wire.ErrMalformed
		}
		t.candidates(m)
		return nil
	case wire.FrameOpen:
		m, err := wire.ParseOpen(body)
		if err != nil {
			return err
		}
		return t.accept(l, h.Stream, m)
	}
	t.mu.Lock()
	e := t.ends[h.Stream]
	over, may := t.over, l.direct || t.paths != grant.DirectOnly // what is under way where the policy is "never" comes yet
	t.mu.Unlock()
	switch {
	case !may && h.Type == wire.FrameDatagram:
		t.drops.Add(1)
		return nil
	case over:
		// The tunnel is ending, and what was open is gone.
		return nil
	case e == nil:
		return t.notOpen(l, h, body)
	}
	return e.frame(l, h, body)
}

// notOpen takes a frame for a stream that is not open. One that was over here
// may live on at the peer, if the last word about it was lost with a carrier: who
// asks is told. What comes late on a carrier that the stream has left means
// nothing, and a datagram never does. Anything else is stray.
func (t *Tunnel) notOpen(l *link, h wire.FrameHeader, body []byte) error {
	answer := false
	var err error
	switch h.Type {
	case wire.FrameDatagram:
		t.drops.Add(1)
		return nil
	case wire.FrameReset:
		var m wire.Reset
		m, err = wire.ParseReset(body)
		answer = m != wire.Reset{}
	case wire.FrameResume:
		_, err = wire.ParseResume(body)
		answer = true
	case wire.FrameAck:
		_, err = wire.ParseAck(body)
		answer = true
	}
	switch {
	case err != nil:
		return err
	case h.Type == wire.FrameReset && t.neverOpens(h.Stream), t.wasOpen(h.Stream):
		switch {
		case answer:
			l.conn.Send(wire.AppendFrame(nil, h.Stream, wire.Reset{}))
			return nil
		case h.Type == wire.FrameReset || l.left(h.Stream):
			return nil
		}
	}
	if n := t.stray.Add(1); n >= maxStray {
		return errStray
	}
	t.cfg.Log.Debug("stray frame", "type", h.Type.String(), "stream", h.Stream)
	return nil
}

// wasOpen reports whether a number was in use.
func (t *Tunnel) wasOpen(id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen.mine(id) {
		return t.seen.was(id)
	}
	return id != 0 && id < t.nextID
}

// neverOpens notes that the peer has reset a stream whose OPEN was lost: should
// that still come, it comes too late. It reports false for a number that is not
// the peer's.
func (t *Tunnel) neverOpens(id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.seen.mine(id) {
		return false
	}
	t.seen.use(id)
	return true
}

// peerCloses takes the peer's CLOSE.
func (t *Tunnel) peerCloses(m wire.TunnelClose) {
	if m.Reason != wire.ReasonIdle {
		why := &EndError{Peer: true, Reason: m.Reason, Text: m.Text}
		t.finish(why, why)
		return
	}
	t.mu.Lock()
	nothing := len(t.ends) == 0
	t.asked = t.asked || nothing
	t.mu.Unlock()
	if nothing {
		t.finish(nil, &EndError{Reason: wire.ReasonIdle})
	}
}
