package daemon

import (
	"math"
	"testing"
)

// F37: buffers leave the portal its own share of little memory.
func TestBuffersFitIntoMemory(t *testing.T) {
	for limit, want := range map[int64]int64{
		1 << 20: leastBuffers, 32 << 20: 32<<20 - bare, 8 << 30: mostBuffers, math.MaxInt64: mostBuffers,
	} {
		if got := buffers(limit); got != want {
			t.Errorf("where %d bytes may be taken: %d, want %d", limit, got, want)
		}
	}
}
