// Package privilege gives back what the relay no longer needs once it has
// started. It is handed capabilities by systemd, or all of them as root; what a
// hole in it could be used for is decided here.
package privilege

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities(7).
type Set uint64

// Of returns the set of the capabilities of these numbers (unix.CAP_BPF and so
// on).
func Of(capabilities ...int) Set {
	var s Set
	for _, c := range capabilities {
		s |= 1 << c
	}
	return s
}

// Held returns what the process may use now.
func Held() (Set, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read the capabilities: %w", err)
	}
	return Set(data[0].Effective) | Set(data[1].Effective)<<32, nil
}

// Keep takes from every thread of the process, for good, all capabilities but
// those of keep, and the way to new ones: the bounding set, the ambient set and
// setuid programs (PR_SET_NO_NEW_PRIVS). What the process does not hold it does
// not get.
func Keep(keep Set) error {
	held, err := Held()
	if err != nil {
		return err
	}
	if held&Of(unix.CAP_SETPCAP) != 0 {
		for c := 0; c <= unix.CAP_LAST_CAP; c++ {
			if keep&Of(c) != 0 {
				continue
			}
			err := every(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0)
			if err != nil && !errors.Is(err, unix.EINVAL) { // one that this kernel does not know
				return fmt.Errorf("give back capability %d: %w", c, err)
			}
		}
	}
	if err := every(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("give back the ambient capabilities: %w", err)
	}
	if err := set(held & keep); err != nil {
		return fmt.Errorf("give back capabilities: %w", err)
	}
	if err := every(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("give up setuid programs: %w", err)
	}
	return nil
}
