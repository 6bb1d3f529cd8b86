package metrics

import (
	"os"

	"golang.org/x/sys/unix"
)

// descriptors returns how many descriptors are open, and how many may be. Opening
// the folder takes one, which is not counted.
func descriptors() (open, limit uint64, ok bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, 0, false
	}
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, 0, false
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) == 0 {
		return 0, 0, false
	}
	return uint64(len(names)) - 1, l.Cur, true
}
