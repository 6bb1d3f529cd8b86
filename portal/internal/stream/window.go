package stream

import "time"

// growth finds out whether a window is too small for the way: a sender that
// waits for credit sends a window's worth in each round trip, so a window that
// was consumed within two of them held the sender back.
type growth struct {
	since time.Time
	from  uint64 // written at since
	small bool

	// The window as it is, and the one before, if that was smaller.
	changed   time.Time // when it became so
	changedAt uint64    // written at changed
	before    uint64    // bytes a second that came through the one before
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
	if took := now.Sub(g.since); !g.since.IsZero() && took <= within {
		g.small = g.small || window < longWindow || speed(written-g.from, took) >= g.before/2*3
	}
	g.since, g.from = now, written
}

// change notes that the window becomes larger or smaller. What a window held back
// comes twice as fast through one of twice the size. If it does not, it is something
// else that holds it back, most likely the processors, and their queues are what makes
// the round trip so long.
func (g *growth) change(larger bool) {
	g.before = 0
	if larger && !g.changed.IsZero() {
		g.before = speed(g.from-g.changedAt, g.since.Sub(g.changed))
	}
	g.changed, g.changedAt = g.since, g.from
}

func speed(bytes uint64, took time.Duration) uint64 {
	return bytes * uint64(time.Second) / uint64(max(took, 1))
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
	h := &s.receive
	n = min(max(n, SmallWindow), MaxWindow)
	if n != h.window {
		h.grow.change(n > h.window)
	}
	h.window = n
}
