package stream

import "time"

// growth finds out whether a window is too small for the way: a sender that
// waits for credit sends a window's worth in each round trip, so a window that
// was consumed within two of them held the sender back.
type growth struct {
	since time.Time
	from  uint64 // written at since
	small bool
}

// growFloor is added to two round trips: on a way as short as a loopback the
// cost of an ACK for every quarter of a small window is what holds a stream
// back, not the round trip.
const growFloor = 2 * time.Millisecond

func (g *growth) wrote(written, window uint64, now time.Time, rtt time.Duration) {
	if written-g.from < window && !g.since.IsZero() {
		return
	}
	g.small = g.small || !g.since.IsZero() && now.Sub(g.since) <= 2*rtt+growFloor
	g.since, g.from = now, written
}

// WindowSmall reports whether the window holds the peer back and may grow. It
// asks once: the owner then calls SetWindow or leaves it.
func (s *Stream) WindowSmall() bool {
	small := s.receive.grow.small
	s.receive.grow.small = false
	return small && s.receive.window < MaxWindow
}

// Window is how many bytes the stream takes ahead of its application.
func (s *Stream) Window() uint64 { return s.receive.window }

// SetWindow changes the window, within SmallWindow and MaxWindow. A smaller one
// takes effect as bytes are written out: what was promised stays promised.
func (s *Stream) SetWindow(n uint64) {
	s.receive.window = min(max(n, SmallWindow), MaxWindow)
}
