//go:build unix

package folder

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwn refuses a folder that others can write in, or that is another user's.
func checkOwn(dir string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write in the folder %s; run: chmod go-w %s", dir, dir)
	}
	if uid, ok := foreign(info); ok {
		return fmt.Errorf("the folder %s belongs to user %d, and this process runs as user %d", dir, uid, os.Geteuid())
	}
	return nil
}

// foreign returns whose something is that belongs neither to root nor to us.
func foreign(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() || st.Uid == 0 {
		return 0, false
	}
	return st.Uid, true
}

func checkOne(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid, ok := foreign(info); ok {
		return fmt.Errorf("the folder %s above it belongs to user %d, who can replace what is in it; use a folder of root's or of user %d", dir, uid, os.Geteuid())
	}
	perm := info.Mode().Perm()
	others := perm&0o002 != 0
	if st, ok := info.Sys().(*syscall.Stat_t); ok && perm&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid() {
		others = true
	}
	if others && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("others can write in the folder %s above it and replace what is in it; run: chmod go-w %s", dir, dir)
	}
	return nil
}
