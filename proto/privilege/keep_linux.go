package privilege

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

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
// setuid programs (PR_SET_NO_NEW_PRIVS). A process that may leave its supplementary
// groups leaves them. What the process does not hold it does not get.
func Keep(keep Set) error {
	held, err := Held()
	if err != nil {
		return err
	}
	if held&Of(unix.CAP_SETGID) != 0 {
		if err := syscall.Setgroups(nil); err != nil { // on every thread, as package syscall says
			return fmt.Errorf("leave the supplementary groups: %w", err)
		}
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
