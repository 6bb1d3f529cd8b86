//go:build unix

package folder

import (
	"fmt"
	"io/fs"
	"os"
)

// Make makes a folder for the user of this process alone, and those above it that are
// missing. One that is there stays as it is.
func Make(dir string) error { return os.MkdirAll(dir, 0o700) }

// Create makes a new file and opens it for writing. Where the mode keeps others out, so
// does, on a system without modes, its access control list.
func Create(file string, mode fs.FileMode) (*os.File, error) {
	return os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Restrict leaves a file or socket to the user of this process alone.
func Restrict(file string) error { return os.Chmod(file, 0o600) }

// CheckSecret refuses a file that others than its owner can read or write, or that
// belongs to somebody else than the user of this process or root, or in whose place
// others can put another (CheckAbove). A symbolic link is judged by what it points to;
// info is of that.
func CheckSecret(file string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("its mode %04o lets others use it; run: chmod 600 %s", perm, file)
	}
	if uid, ok := foreign(info); ok {
		return fmt.Errorf("it belongs to user %d, and this process runs as user %d; run: chown %d %s", uid, os.Geteuid(), os.Geteuid(), file)
	}
	return CheckAbove(file)
}
