package tunnel

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// settleTime is how long a carrier must have been the better one before flows leave for it
// one that works, or ten round trips where that is longer, up to lastSettle. Streams that come
// there have all to send again that was under way, and fill what a new connection may send for
// as long: a datagram among them would wait for a round trip, or several.
const (
	settleTime = time.Second
	lastSettle = 5 * time.Second
)

// flowsLocked chooses the carrier that flows take, and returns when it is to be called again.
// They leave at once what is silent, gone or forbidden; anything else only for a carrier that
// has settled and on which the peer has answered. So a change of paths that both work costs
// them nothing.
func (t *Tunnel) flowsLocked(at time.Time) (wait time.Duration) {
	now := t.flowAt.Load()
	next := t.pickLocked(wire.CarrierQUIC, now)
	if next != now {
		next = t.pickLocked(wire.CarrierQUIC, t.flowNext) // of several that are as good, the same as before
	}
	if next == nil || next == now || !t.flowsStayLocked(now) {
		t.flowAt.Store(next)
		t.flowNext = nil
		return time.Hour
	}
	if next != t.flowNext {
		t.flowNext, t.nextSince = next, at
		t.wake()
	}
	rtt := next.conn.WindowRTT()
	wait = min(max(settleTime, 10*rtt), lastSettle) - at.Sub(t.nextSince)
	switch {
	case wait > 0:
		return wait
	case rtt == 0:
		return settleTime
	}
	t.flowAt.Store(next)
	t.flowNext = nil
	t.changedLocked() // what the peer has not answered is said again there
	return time.Hour
}

// flowsStayLocked reports whether there are flows, and may stay on the carrier for a while.
func (t *Tunnel) flowsStayLocked(now *link) bool {
	return t.streams < len(t.ends) && slices.Contains(t.links, now) && t.mayTakeLocked(now) && !now.silent.Load()
}

// follow has flows take their next carrier when that has settled, and returns when it is to
// be called again.
func (t *Tunnel) follow(now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flowsLocked(now)
}
