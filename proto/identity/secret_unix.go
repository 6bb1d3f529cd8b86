//go:build unix

package identity

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/netport/netport/proto/folder"
)

// openFile opens a file for reading without waiting for anybody: a pipe that
// has no writer opens at once.
func openFile(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// checkSecret refuses a file that others than its owner can read or write, or
// that belongs to somebody else than the user of this process (root may own
// it). A symbolic link is judged by what it points to.
func checkSecret(file string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("its mode %04o lets others use it; run: chmod 600 %s", perm, file)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("it belongs to user %d, and this process runs as user %d; run: chown %d %s", st.Uid, os.Geteuid(), os.Geteuid(), file)
	}
	return folder.CheckAbove(file)
}
