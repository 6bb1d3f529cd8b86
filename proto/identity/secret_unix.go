//go:build unix

package identity

import (
	"fmt"
	"os"
	"syscall"
)

// CheckSecret refuses a file that others than its owner can read, that belongs
// to somebody else than the user of this process (root may own it), or that is
// not a regular file. A symbolic link is judged by what it points to.
func CheckSecret(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read key %s: %w", file, reason(err))
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read key %s: it is not a regular file", file)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("read key %s: its mode %04o lets others read it; run: chmod 600 %s", file, perm, file)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("read key %s: it belongs to user %d, and this process runs as user %d; run: chown %d %s", file, st.Uid, os.Geteuid(), os.Geteuid(), file)
	}
	return nil
}
