package probe

// windowSize is how far below the highest counter one may still come: probes to
// several addresses overtake each other.
const windowSize = 256

// Window tells which counters of one sender have come. The zero Window has seen none.
// Counters come around: one is above another by less than half of them all (RFC 1982).
type Window struct {
	any  bool // one has come
	top  uint32
	seen [windowSize]bool // by counter modulo windowSize, of those above top - windowSize
}

// Take reports whether a counter comes for the first time, and notes it. One that is
// too old to know is taken for one that has come.
func (w *Window) Take(n uint32) bool {
	switch {
	case !w.any:
		w.any, w.top = true, n
	case int32(n-w.top) > 0:
		for i := uint32(0); i < min(n-w.top, windowSize); i++ {
			w.seen[(n-i)%windowSize] = false
		}
		w.top = n
	case w.top-n >= windowSize || w.seen[n%windowSize]:
		return false
	}
	w.seen[n%windowSize] = true
	return true
}
