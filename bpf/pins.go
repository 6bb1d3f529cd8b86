//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errInUse says that a running process owns a directory of pins.
var errInUse = errors.New("a running relay uses it")

// pins is the directory on a bpffs that keeps maps and links alive without a
// process. Whoever has it open owns it: two daemons must not write one table.
//
//	pin_dir/flows, pin_dir/slots, ...   one file for each map, by its name
//	pin_dir/link-tc-3                   the attachment in mode tc of interface 3
//
// The zero value keeps nothing: all ends with the process.
type pins struct {
	dir   string
	lock  *os.File
	empty bool // when it was opened
}

// openPins takes hold of a directory. If it cannot keep pins, it says why to
// the log and returns pins that keep nothing; an error means that it belongs to
// another process.
func openPins(dir string, log *slog.Logger) (pins, error) {
	if dir == "" {
		return pins{}, nil
	}
	err := makePinDir(dir)
	if err != nil {
		log.Warn("kernel forwarding ends with this process", "pin_dir", dir, "error", err)
		return pins{}, nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return pins{}, fmt.Errorf("open pin_dir %s: %w", dir, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		lock.Close()
		return pins{}, fmt.Errorf("open pin_dir: %w", err)
	}
	return pins{dir, lock, len(files) == 0}, nil
}

// makePinDir makes a directory that pins can be put into.
func makePinDir(dir string) error {
	above := filepath.Clean(dir)
	for {
		_, err := os.Stat(above)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		above = filepath.Dir(above)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(above, &s); err != nil {
		return fmt.Errorf("statfs %s: %w", above, err)
	}
	if int64(s.Type) != unix.BPF_FS_MAGIC {
		return errors.New("not on a bpffs; as root, run: mount -t bpf bpf /sys/fs/bpf")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK)
}

// lockDir locks a directory for as long as the file, or the process, lives.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errInUse
		}
		return nil, os.NewSyscallError("flock", err)
	}
	return f, nil
}

// keep reports whether there is anything that can be pinned to.
func (p pins) keep() bool { return p.dir != "" }

// close lets another process have the directory. What is pinned stays.
func (p pins) close() error {
	if p.lock == nil {
		return nil
	}
	return p.lock.Close()
}

// of returns the file of a map.
func (p pins) of(name string) string { return filepath.Join(p.dir, name) }

// pinnedLink is the file of an attachment.
type pinnedLink struct {
	mode      string
	ifindex   int
	directory string
}

const linkPrefix = "link-"

func (p pins) link(mode string, ifindex int) pinnedLink { return pinnedLink{mode, ifindex, p.dir} }

func (l pinnedLink) path() string {
	return filepath.Join(l.directory, linkPrefix+l.mode+"-"+strconv.Itoa(l.ifindex))
}

// links lists the attachments that are pinned.
func (p pins) links() ([]pinnedLink, error) {
	if !p.keep() {
		return nil, nil
	}
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("read pin_dir: %w", err)
	}
	var list []pinnedLink
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name(), linkPrefix)
		if !ok {
			continue
		}
		at := strings.LastIndexByte(rest, '-')
		if at < 0 {
			continue
		}
		ifindex, err := strconv.Atoi(rest[at+1:])
		if err != nil {
			continue
		}
		list = append(list, p.link(rest[:at], ifindex))
	}
	return list, nil
}
