package tunnel

import (
	"context"

	"github.com/netport/netport/proto/wire"
)

// answer is the Sink of a probe: it takes the peer's RESET.
type answer chan error

// Datagram implements Sink; a probe gets none.
func (answer) Datagram([]byte) {}

// Ended implements Sink.
func (a answer) Ended(err error) { a <- err }

// Probe asks the peer to check a grant and dial its target, and to report. It
// returns the peer's words about the target if that could be reached, else an
// *EndError.
func (t *Tunnel) Probe(ctx context.Context, grant wire.GrantID, signed []byte) (string, error) {
	var f *Flow
	var open []byte
	said := make(answer, 1)
	err := t.open(ctx, grant, signed, func(l *link, id uint32, signed []byte) end {
		f = newFlow(t, l, id, grant)
		f.sink = said
		f.probe = true
		open = wire.AppendFrame(nil, id, wire.Open{Kind: wire.OpenProbe, Grant: grant, Signed: signed})
		return f
	})
	if err != nil {
		return "", err
	}
	f.link.conn.Send(open)
	select {
	case err = <-said:
	case <-ctx.Done():
		f.Close(wire.ReasonTimeout)
		return "", context.Cause(ctx)
	}
	if end, ok := err.(*EndError); ok && end.Peer && end.Reason == wire.ReasonNone {
		return end.Text, nil
	}
	return "", err
}
