package tunnel

import (
	"slices"

	"github.com/netport/netport/proto/wire"
)

// Offer tells the peer where this portal may be reached without a relay, best first.
// The peer is told again on each carrier that comes, and when one has gone: what was
// told on that may be lost. It does not block.
func (t *Tunnel) Offer(list []wire.Candidate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own.Number > 0 && slices.Equal(t.own.List, list) {
		return // who has no address at all says that, too
	}
	t.own.Number++
	t.own.Machine = t.cfg.Machine
	t.own.List = slices.Clone(list)
	t.offerLocked(t.bestLocked(wire.CarrierTCP))
}

// offerLocked says on a carrier what was offered.
func (t *Tunnel) offerLocked(l *link) {
	if l != nil && t.own.Number > 0 && !t.over {
		l.conn.Send(wire.AppendFrame(nil, 0, t.own))
	}
}

// candidates takes the peer's CANDIDATES.
func (t *Tunnel) candidates(m wire.Candidates) {
	t.mu.Lock()
	newer := m.Number > t.theirs
	t.theirs = max(t.theirs, m.Number)
	t.mu.Unlock()
	if newer && t.cfg.Candidates != nil {
		t.cfg.Candidates(m)
	}
}
