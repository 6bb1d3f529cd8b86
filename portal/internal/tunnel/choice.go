package tunnel

import (
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/grant"
)

const (
	// weighEvery is how often a direct path and that by a relay are measured beside
	// each other while something is carried.
	weighEvery = time.Second
	// lookEvery is how often it is looked after whether something is, which sends nothing,
	// and littleBytes what is sent and received in between on each carrier where nothing is:
	// what a measurement by both portals takes.
	lookEvery   = 10 * time.Second
	littleBytes = 96
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
// direct path is taken unless it takes clearly longer. In the same way it decides whether one
// direct carrier is left for another. It has no clock.
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
	longer := clearlyLonger(direct, relay)
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

// clearlyLonger reports whether a round trip is.
func clearlyLonger(rtt, than time.Duration) bool { return rtt > than+than/4+clearly }

// none takes that there is no direct path any more: the next is another.
func (c *choice) none() { c.slow, c.since = false, time.Time{} }

// weigh measures what may be taken instead of another, where something is carried, and
// chooses. It returns when it is to be called again. A connection that is left open over night
// is not to cost what a measurement every second does.
func (t *Tunnel) weigh(now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ends) == 0 {
		return time.Hour
	}
	// Each stream that opens wakes the loop, and looking asks the system about each carrier.
	if since := now.Sub(t.lookedAt); since < weighEvery {
		return weighEvery - since
	}
	t.lookedAt = now
	var relayed, direct []*link
	carried := t.past.Sent + t.past.Received
	for _, l := range t.links {
		n := l.conn.Stats()
		carried += n.Sent + n.Received
		switch {
		case l.silent.Load() || l.retired.Load():
		case l.direct:
			direct = append(direct, l)
		default:
			relayed = append(relayed, l)
		}
	}
	measured := direct
	relay := quickest(relayed, carrier.Conn.RTT)
	switch both := relay != nil && len(direct) > 0 && t.paths == grant.DirectAny; {
	case both:
		measured = append(measured, relay)
	case len(direct) < 2:
		return time.Hour
	default:
		relay = nil
	}
	little := carried-t.weighed <= littleBytes*uint64(len(measured))
	if t.weighed = carried; little {
		return lookEvery
	}
	if relay != nil {
		t.weighPathsLocked(now, relay, quickest(direct, carrier.Conn.RTT))
	}
	t.weighDirectLocked(now, direct)
	for _, l := range measured {
		l.conn.Measure(now)
	}
	return weighEvery
}

// quickest returns the carrier whose round trip is the shortest; nil if there is none.
func quickest(list []*link, rtt func(carrier.Conn) time.Duration) (best *link) {
	for _, l := range list {
		if best == nil || rtt(l.conn) > 0 && (rtt(l.conn) < rtt(best.conn) || rtt(best.conn) == 0) {
			best = l
		}
	}
	return best
}

// weighPathsLocked chooses between direct carriers and those by a relay.
func (t *Tunnel) weighPathsLocked(now time.Time, relay, direct *link) {
	if t.choice.weigh(now, relay.conn.RTT(), direct.conn.RTT()) {
		t.chooseLocked()
		t.cfg.Log.Info("another path is taken", "direct", !t.choice.slow, "direct-rtt", direct.conn.RTT(), "relay-rtt", relay.conn.RTT())
	}
}

// weighDirectLocked finds the direct carriers that take clearly longer than another: what
// dials for TCP may go another way than what punches for UDP. They do only if both the round
// trips of now and the shortest that were seen say so: the former are longer by what waits
// behind a carrier's own streams, the latter by what did from the beginning.
func (t *Tunnel) weighDirectLocked(now time.Time, direct []*link) {
	rtt := quickest(direct, carrier.Conn.RTT).conn.RTT()
	least := quickest(direct, carrier.Conn.LeastRTT).conn.LeastRTT()
	for _, l := range direct {
		than, own := rtt, l.conn.RTT()
		if !clearlyLonger(l.conn.LeastRTT(), least) {
			than, own = least, l.conn.LeastRTT()
		}
		if l.longer.weigh(now, than, own) {
			l.detour.Store(l.longer.slow)
			t.changedLocked()
			t.cfg.Log.Info("a direct carrier is judged anew", "path", l.way.String(), "carrier", l.conn.Connection(), "kind", l.conn.Kind().String(),
				"clearly-longer", l.longer.slow, "rtt", own, "shortest", than)
		}
	}
}

// chooseLocked has what was chosen taken.
func (t *Tunnel) chooseLocked() {
	if t.slow.Swap(t.choice.slow) != t.choice.slow {
		t.changedLocked()
	}
}
