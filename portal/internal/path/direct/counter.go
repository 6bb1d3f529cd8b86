package direct

import "time"

const (
	// clockTick is in what the counters of lasting keys count the time: fewer probes are sent.
	clockTick = 100 * time.Millisecond
	// clockApart is how far apart the clocks of two portals may be.
	clockApart = time.Hour
)

// clockCounter is the counter of a probe at a time, for lasting keys. It comes around every 13
// years, which a window does not mind.
func clockCounter(now time.Time) uint32 {
	return uint32(now.UnixMilli() / clockTick.Milliseconds())
}

// freshLocked takes the counter of a probe that has come, and reports whether it may be
// answered.
func (p *Path) freshLocked(counter uint32, now time.Time) bool {
	if p.Lasting && int32(counter-clockCounter(now.Add(-clockApart))) < 0 {
		return false
	}
	return p.window.Take(counter)
}
