package daemon

import "math"

const (
	// mostBuffers and leastBuffers bound what all tunnels hold or promise to hold, in
	// bytes, whatever memory there is.
	mostBuffers, leastBuffers = 256 << 20, 4 << 20
	// bare is what a portal takes besides, with a few hundred streams.
	bare = 8 << 20
)

// buffers is how much all tunnels may hold where the runtime may take so much
// (memory.Limit).
func buffers(limit int64) int64 {
	if limit == math.MaxInt64 {
		return mostBuffers
	}
	return min(max(limit-bare, leastBuffers), mostBuffers)
}
