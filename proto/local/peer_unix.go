//go:build unix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkFolder refuses a folder in which others could put a socket in our
// place.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write in the folder %s; run: chmod go-w %s", dir, dir)
	}
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("the folder %s belongs to user %d, and this process runs as user %d", dir, st.Uid, os.Geteuid())
	}
	return nil
}

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// checkAbove refuses a folder, above one of ours, whose entries others can replace. A
// group that is the user's own, or root's, is nobody else's.
func checkAbove(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("the folder %s above it belongs to user %d, who can replace what is in it; use a folder of root's or of user %d", dir, st.Uid, os.Geteuid())
	}
	perm := info.Mode().Perm()
	others := perm&0o002 != 0 || perm&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid()
	if others && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("others can write in the folder %s above it and replace what is in it; run: chmod go-w %s", dir, dir)
	}
	return nil
}

// takeLock holds an exclusive lock on a file for the life of the process. hint says what
// to do where another process has it.
func takeLock(file, hint string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another daemon runs there; stop it first; or %s", hint)
		}
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return f, nil
}

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// admit decides about a caller by its user id.
func admit(uid int) error {
	if uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("it is user %d", uid)
	}
	return nil
}
