//go:build !unix

package identity

import "time"

// cpu returns the least time of three runs of f, where the system's own count
// of processor time is not at hand.
func cpu(f func()) time.Duration {
	best := time.Duration(1 << 62)
	for range 3 {
		begin := time.Now()
		f()
		best = min(best, time.Since(begin))
	}
	return best
}
