//go:build unix

package entry

import (
	"io/fs"
	"os"
	"syscall"
)

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// writableByAll reports whether others may put files into a folder.
func writableByAll(folder fs.FileInfo) bool { return folder.Mode().Perm()&0o002 != 0 }
