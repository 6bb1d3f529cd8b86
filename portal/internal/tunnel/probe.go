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
	said := make(answer, 1)
	f, taken, err := t.openFlow(ctx, grant, signed, wire.Open{Kind: wire.OpenProbe}, said)
	switch {
	case err != nil:
		return "", err
	case !taken:
		f.cut(&EndError{Reason: wire.ReasonBusy, Text: "the carrier's queue is full"}, false)
	}
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
