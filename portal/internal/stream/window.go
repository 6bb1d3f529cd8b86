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

// longWindow is the window above which only a long way needs more. It is what
// keeps a bulk stream between two processors' caches, and a portal's memory
// small.
const longWindow = 2 << 20

func (g *growth) wrote(written, window uint64, now time.Time, rtt time.Duration) {
	need, within := window, 2*rtt
	if window < longWindow {
		// On a way as short as a loopback it is not the round trip that holds
		// a stream back but how long its processes wait for a processor, and
		// what an ACK for every quarter of a small window costs.
		within += 10 * time.Millisecond
	} else {
		// What had piled up in a socket while this portal was not running
		// comes at once, and says nothing about the way.
		need, within = 2*need, 2*within
	}
	if written-g.from < need && !g.since.IsZero() {
		return
	}
	g.small = g.small || !g.since.IsZero() && now.Sub(g.since) <= within
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
