package memory

import (
	"context"
	"time"
)

const (
	// begun is how long after its start a daemon has done what it does but once.
	begun = time.Minute
	// again is how often pages of the program are given back from then on. It costs some
	// hundred page faults that read no disk, well under a millisecond in all.
	again = 10 * time.Minute
)

// Trim gives the pages of the program's file back now and then until ctx is cancelled:
// what is needed is there again at the first touch. Most of a program serves its start and
// rare events, and the kernel maps 64 KB around each touched page: a portal that waits for
// work needs a third of what it has mapped by then.
func Trim(ctx context.Context) {
	next := time.NewTimer(begun)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			giveBack()
			next.Reset(again)
		case <-ctx.Done():
			return
		}
	}
}
