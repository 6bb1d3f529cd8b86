//go:build !unix

package reserve

import "math"

// Limit is how many descriptors this process may have: the system sets none.
func Limit() uint64 { return math.MaxInt64 }
