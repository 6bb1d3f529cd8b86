// Package folder says whether other users of this machine can change what a path leads
// to. A file is not safer than the folders above it: whoever can rename one of them puts
// a file of his own in its place, whatever the file's mode is.
package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks bounds the symbolic links of one path, as Linux does.
const maxLinks = 40

// CheckPrivate refuses a folder in which others can write, that belongs to another user
// than root and that of this process, or in whose place others can put another
// (CheckAbove).
func CheckPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if err := checkOwn(dir, info); err != nil {
		return err
	}
	return CheckAbove(dir)
}

// CheckAbove refuses a file or folder in whose place, or in place of a folder above it,
// other users can put something else. The folders of root and of this process's user are
// good, unless others may write in them; in one in which everybody may write, but removes only
// what is his own (a sticky one, as /tmp is), what is there is safe all the same. A group
// that is the user's own, or root's, is nobody else's. Each symbolic link on the way must
// belong to root or to this user, and the folders above it are looked at as well.
//
// On Windows access control lists say the same: who may remove a folder or what is in it, or
// change such a list. There the good are the system's own users, administrators, the user of
// this process and the account of the portal's service; links are not asked whose they are.
func CheckAbove(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	at, rest := split(path)
	for links := 0; len(rest) > 0; {
		if err := checkOne(at); err != nil {
			return err
		}
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return err
		}
		if info.Mode().Type() != os.ModeSymlink {
			at = next
			continue
		}
		if uid, ok := foreign(info); ok {
			return fmt.Errorf("the link %s belongs to user %d, who can have it lead elsewhere; name what it leads to", next, uid)
		}
		if links++; links > maxLinks {
			return errors.New("too many symbolic links")
		}
		to, err := os.Readlink(next)
		if err != nil {
			return err
		}
		root, names := split(to)
		if filepath.IsAbs(to) {
			at = root
		}
		rest = append(names, rest...)
	}
	return nil
}

// split returns where a path begins, and the names that follow.
func split(path string) (root string, names []string) {
	volume := filepath.VolumeName(path)
	for _, name := range strings.Split(filepath.ToSlash(path[len(volume):]), "/") {
		if name != "" {
			names = append(names, name)
		}
	}
	return volume + string(filepath.Separator), names
}
