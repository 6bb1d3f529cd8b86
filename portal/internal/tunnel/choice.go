package tunnel

import (
	"time"

	"github.com/netport/netport/proto/grant"
)

const (
	// weighEvery is how often a direct path and that by a relay are measured beside
	// each other while something is carried.
	weighEvery = time.Second
	// lookEvery is how often it is looked after whether something is, which sends nothing,
	// and littleBytes what is sent and received in between where nothing is: what a
	// measurement by both portals takes.
	lookEvery   = 10 * time.Second
	littleBytes = 192
	// slowAfter is how long a direct path must take clearly longer before it is left,
	// and fastAfter how long it must not before it is taken again. Each time that it is
	// left once more the latter doubles, up to maxFast, until it was taken for longer
	// than that.
	slowAfter = 5 * time.Second
	fastAfter = 10 * time.Second
	maxFast   = 10 * time.Minute
	// clearly is what a round trip must be longer by, beside a quarter, to be clearly
	// longer.
	clearly = 5 * time.Millisecond
)

// choice decides between a direct path and one by a relay, by round trips that are
// measured at the same time: what fills a line that both share makes both longer. A
// direct path is taken unless it takes clearly longer. It has no clock.
type choice struct {
	slow   bool      // the direct path is left
	since  time.Time // since when the round trips speak against that; zero: they do not
	looked time.Time // last
	turned time.Time // when slow was changed last
	fast   time.Duration
}

// weigh takes the round trips of now; 0: not measured. It reports whether slow has
// changed.
func (c *choice) weigh(now time.Time, relay, direct time.Duration) (changed bool) {
	if now.Sub(c.looked) > 3*weighEvery {
		c.since = time.Time{} // nobody knows what was meanwhile
	}
	c.looked = now
	longer := direct > relay+relay/4+clearly
	if relay == 0 || direct == 0 || longer == c.slow {
		c.since = time.Time{}
		return false
	}
	if c.since.IsZero() {
		c.since = now
	}
	switch {
	case c.slow && now.Sub(c.since) < c.fast, !c.slow && now.Sub(c.since) < slowAfter:
		return false
	case c.slow:
	case now.Sub(c.turned) > maxFast:
		c.fast = fastAfter
	default:
		c.fast = min(max(2*c.fast, fastAfter), maxFast)
	}
	c.slow, c.since, c.turned = !c.slow, time.Time{}, now
	return true
}

// none takes that there is no direct path any more: the next is another.
func (c *choice) none() { c.slow, c.since = false, time.Time{} }

// weigh measures both paths, where there are two and something is carried, and chooses. It
// returns when it is to be called again. A connection that is left open over night is not
// to cost what a measurement every second does.
func (t *Tunnel) weigh(now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ends) == 0 || t.paths != grant.DirectAny {
		return time.Hour
	}
	// Each stream that opens wakes the loop, and looking asks the system about each carrier.
	if since := now.Sub(t.lookedAt); since < weighEvery {
		return weighEvery - since
	}
	t.lookedAt = now
	var relay, direct *link // the quickest of each
	carried := t.past.Sent + t.past.Received
	for _, l := range t.links {
		n := l.conn.Stats()
		carried += n.Sent + n.Received
		best := &relay
		if l.direct {
			best = &direct
		}
		if l.silent.Load() || l.retired.Load() {
			continue
		}
		if rtt := l.conn.RTT(); *best == nil || rtt > 0 && (rtt < (*best).conn.RTT() || (*best).conn.RTT() == 0) {
			*best = l
		}
	}
	if relay == nil || direct == nil {
		return time.Hour
	}
	little := carried-t.weighed <= littleBytes
	if t.weighed = carried; little {
		return lookEvery
	}
	if t.choice.weigh(now, relay.conn.RTT(), direct.conn.RTT()) {
		t.chooseLocked()
		t.cfg.Log.Info("another path is taken", "direct", !t.choice.slow, "direct-rtt", direct.conn.RTT(), "relay-rtt", relay.conn.RTT())
	}
	relay.conn.Measure(now)
	direct.conn.Measure(now)
	return weighEvery
}

// chooseLocked has what was chosen taken.
func (t *Tunnel) chooseLocked() {
	if t.slow.Swap(t.choice.slow) != t.choice.slow {
		t.changedLocked()
	}
}
