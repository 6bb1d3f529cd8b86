package tunnel

import (
	"errors"
	"fmt"

	"github.com/netport/netport/portal/internal/stream"
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
			return t.addCarrier(m)
		}
		m, err := wire.ParseTunnelClose(body)
		if err != nil {
			return err
		}
		t.peerCloses(m)
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
	over := t.over
	t.mu.Unlock()
	switch {
	case over:
		// The tunnel is ending, and what was open is gone.
		return nil
	case e == nil:
		return t.strayFrame(h)
	case e.carrier() != l:
		return fmt.Errorf("%w: the stream is on another carrier", wire.ErrMalformed)
	}
	return e.frame(l, h, body)
}

// strayFrame counts a frame for a stream that is not open.
func (t *Tunnel) strayFrame(h wire.FrameHeader) error {
	if n := t.stray.Add(1); n >= maxStray {
		return errStray
	}
	t.cfg.Log.Debug("stray frame", "type", h.Type.String(), "stream", h.Stream)
	return nil
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
