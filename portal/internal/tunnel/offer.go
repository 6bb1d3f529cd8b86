package tunnel

import (
	"context"
	"net"
	"net/netip"

	"github.com/netport/netport/portal/internal/carrier/rawio"
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// OfferStream is OpenStream for a connection that another tunnel could carry as
// well: it takes nothing from app before the peer has connected the target, and
// then calls took. Until then, which costs a round trip, an error leaves app
// untouched and open, whatever it is, and ctx ends the wait.
func (t *Tunnel) OfferStream(ctx context.Context, grant wire.GrantID, signed []byte, source netip.AddrPort, app net.Conn, took func()) (Totals, error) {
	window := t.budget.window()
	var p *pipe
	err := t.open(ctx, grant, signed, wire.CarrierTCP, func(l *link, id uint32, signed []byte) end {
		p = newPipe(t, l, id, grant, stream.New(id, wire.FirstLimit, uint64(window)))
		p.mine = true
		p.open = wire.AppendFrame(nil, id, wire.Open{Kind: wire.OpenStream, Grant: grant, Signed: signed, Limit: uint64(window), Source: source})
		return p
	})
	if err != nil {
		return Totals{}, err
	}
	p.mu.Lock()
	p.accountLocked()
	p.mu.Unlock()
	p.write()
	if err := p.offered(ctx, app); err != nil {
		return Totals{}, err
	}
	p.enter()
	took()
	src := newSource()
	return p.carry(rawio.NewReader(app, src), src)
}

// offered waits until the peer has connected the target, and then takes app.
func (p *pipe) offered(ctx context.Context, app net.Conn) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.app == nil {
			p.cutLocked(&EndError{Reason: wire.ReasonTimeout}, true)
		}
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.accepted && !p.endedLocked() {
		p.room.Wait()
	}
	switch {
	case !p.endedLocked():
		p.joinLocked(app)
		p.drainLocked() // what the target has said already
		return nil
	case ctx.Err() != nil && p.why != nil && !p.why.Peer:
		return context.Cause(ctx)
	case p.why != nil:
		return p.why
	}
	return &EndError{Peer: true, Reason: wire.ReasonCarrierLost, Text: "the stream is over"}
}
