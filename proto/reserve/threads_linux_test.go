package reserve

import (
	"os"
	"testing"
)

// TestThreadsAreThere: they stay when nobody holds them any more.
func TestThreadsAreThere(t *testing.T) {
	Threads()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < threads {
		t.Errorf("%d threads, %v, want %d at least", len(tasks), err, threads)
	}
}
