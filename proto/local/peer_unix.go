//go:build unix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func openLock(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// admit decides about a caller by its user id. More than our own user and root may be
// served.
func admit(uid int, more ...int) error {
	if uid != os.Geteuid() && uid != 0 && !slices.Contains(more, uid) {
		return fmt.Errorf("it is user %d", uid)
	}
	return nil
}
