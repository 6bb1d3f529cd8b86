//go:build unix

package reserve

import (
	"math"
	"syscall"
)

// Limit is how many descriptors this process may have.
func Limit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt64
	}
	return uint64(limit.Cur)
}
