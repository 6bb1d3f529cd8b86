// Package memory has a daemon live within the memory that its control group, as of a
// container or a service with MemoryMax=, leaves it: the garbage collector works harder
// before the kernel kills the process, and who has buffers can measure them by what
// there is. Nor does it keep what it does not use of its own program in memory.
package memory

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// program is about what of a daemon's memory is not the Go runtime's: the pages
	// of its file.
	program = 8 << 20
	// least is for the runtime, however little there is.
	least = 12 << 20
)

// Fit sets the runtime's limit to what fits into the control group with a fifth to spare.
// The environment variable GOMEMLIMIT, where it is set, has the last word.
func Fit(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	group, err := memlimit.FromCgroup()
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		return
	case err != nil:
		log.Warn("limit of memory not known: set GOMEMLIMIT if there is one", "error", err)
		return
	case group > math.MaxInt64/2:
		return
	}
	limit := fit(int64(group))
	debug.SetMemoryLimit(limit)
	log.Info("memory is limited", "group", mebibytes(int64(group)), "runtime", mebibytes(limit))
}

// Limit is what the runtime may take, in bytes; math.MaxInt64 where nothing is limited.
func Limit() int64 { return debug.SetMemoryLimit(-1) }

// fit is the runtime's share of a control group's limit.
func fit(group int64) int64 { return max(group/5*4-program, least) }

func mebibytes(n int64) string { return fmt.Sprintf("%dMiB", n>>20) }
