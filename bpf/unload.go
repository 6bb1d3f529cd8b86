//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Unload takes down everything that is pinned in a directory: the program, the
// table and its sessions, and the directory, unless that is another user's, for whom
// somebody has made it, or this user may not. No relay may be running with it. It is no
// error if nothing is there. The interfaces are those of the network
// namespace of the calling thread.
func Unload(pinDir string) error {
	if err := unload(pinDir); err != nil {
		return fmt.Errorf("unload the kernel plane of %s: %w", pinDir, err)
	}
	return nil
}

func unload(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err == nil && int64(s.Type) != unix.BPF_FS_MAGIC {
		return errors.New("it is not on a bpffs: nothing is pinned there")
	}
	lock, err := lockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errInUse) {
		return fmt.Errorf("%w: stop it first", err)
	}
	if err != nil {
		return err
	}
	p := pins{dir: dir, lock: lock}
	defer p.close()
	n, err := openNetwork()
	if err != nil {
		return err
	}
	defer n.close()
	devices, err := n.devices()
	if err != nil {
		return err
	}
	links, err := p.links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, l.remove())
	}
	for _, d := range devices {
		errs = append(errs, n.removeFilter(d.index, dir))
	}
	if err := errors.Join(errs...); err != nil {
		return err // without the program's maps it would be worse than with them
	}
	spec, err := loadRelay()
	if err != nil {
		return err
	}
	for _, name := range mapNames(spec) {
		if err := os.Remove(p.of(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, removeOwn(dir))...)
}

// removeOwn removes a directory of this user's. A relay that runs without privileges could
// not make it again.
func removeOwn(dir string) error {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil || int(s.Uid) != os.Geteuid() {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
