package tunnel

// idWindow knows which stream numbers the peer has used. Each may be opened
// once in the tunnel's life. OPENs of different carriers overtake each other,
// so a number may be lower than one that was seen; one that lies further back
// than any honest delay is refused.
type idWindow struct {
	odd  bool // the peer's numbers are odd
	top  uint32
	bits [idSpan / 64]uint64 // of the numbers up to top, by number/2
}

// idSpan is how many numbers back the window reaches.
const idSpan = 8192

// mine reports whether id lies in the peer's number space.
func (w *idWindow) mine(id uint32) bool { return id != 0 && (id&1 == 1) == w.odd }

// was reports whether id was used.
func (w *idWindow) was(id uint32) bool {
	n := id / 2
	top := w.top / 2
	switch {
	case w.top == 0 || n > top:
		return false
	case top-n >= idSpan:
		return true
	}
	return w.bits[n%idSpan/64]&(1<<(n%64)) != 0
}

// use marks id as used. It reports whether it was free.
func (w *idWindow) use(id uint32) bool {
	if w.was(id) {
		return false
	}
	n := id / 2
	top := w.top / 2
	if w.top == 0 || n > top {
		from := n
		if w.top != 0 && n-top < idSpan {
			from = top + 1
		} else {
			clear(w.bits[:])
		}
		for i := from; i <= n; i++ {
			w.bits[i%idSpan/64] &^= 1 << (i % 64)
		}
		w.top = id
	}
	w.bits[n%idSpan/64] |= 1 << (n % 64)
	return true
}
