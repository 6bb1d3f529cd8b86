package joining

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/await"
)

// asUser runs f on a thread that is another user meanwhile. The thread must not end: the programs that it has started
// would be killed with it.
func asUser(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		// The raw calls change this thread alone; package syscall's change all.
		set := func(trap, id uintptr) {
			if _, _, errno := unix.RawSyscall(trap, id, id, 0); errno != 0 {
				panic(fmt.Sprintf("become user %d: %v", id, errno))
			}
		}
		set(unix.SYS_SETRESGID, uid)
		set(unix.SYS_SETRESUID, uid)
		defer func() { // also where f ends the test
			set(unix.SYS_SETRESUID, 0)
			set(unix.SYS_SETRESGID, 0)
			runtime.UnlockOSThread()
		}()
		f()
	}()
	await.Receive(t, fmt.Sprintf("the end of what user %d does", uid), done)
}

// TestSocketsServeTheirOwnerAlone: another user does not come as far as the socket of any role; were its folder and its
// mode ever wider, he would be told nothing (T36).
func TestSocketsServeTheirOwnerAlone(t *testing.T) {
	m := newMachine(t, nobody)
	const stranger = 12345
	for _, r := range residents {
		socket := m.socket(r)
		info, err := os.Stat(socket)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", socket, info.Mode())
		}
		if info, err := os.Stat(filepath.Dir(socket)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: its folder: %v, %v", socket, info.Mode(), err)
		}
		asUser(t, stranger, func() {
			if c, err := net.Dial("unix", socket); !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s: another user: %v, %v", socket, c, err)
			}
		})
		for _, f := range []string{m.dir, m.folder(r.folder), filepath.Dir(socket)} {
			if err := os.Chmod(f, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(socket, 0o666); err != nil {
			t.Fatal(err)
		}
		for uid, answered := range map[uintptr]bool{stranger: false, uintptr(nobody.Uid): true, 0: true} {
			asUser(t, uid, func() {
				c, err := net.Dial("unix", socket)
				if err != nil {
					t.Errorf("%s: user %d: %v", socket, uid, err)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				request := `{"command":"status"}`
				fmt.Fprintf(c, "\x00\x01\x00\x00\x00%c%s", len(request), request)
				b, err := io.ReadAll(c)
				if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(b), "version") != answered {
					t.Errorf("%s: user %d was told %q, %v", socket, uid, b, err)
				}
			})
		}
	}
}

// TestSocketsTakeNobodysPlace: what is in the way of a socket stays as it is, and the daemon does not run (T36).
func TestSocketsTakeNobodysPlace(t *testing.T) {
	m := newMachine(t, nobody)
	for _, r := range residents {
		m.running[r.folder].stop()
	}
	for _, r := range residents {
		socket := m.socket(r)
		target := filepath.Join(m.dir, "target-"+r.folder)
		if err := os.WriteFile(target, []byte("keep"), 0o644); err != nil {
			t.Fatal(err)
		}
		for what, place := range map[string]func() error{
			"a file":               func() error { return os.WriteFile(socket, []byte("keep"), 0o600) },
			"a link to a file":     func() error { return os.Symlink(target, socket) },
			"a link to nothing":    func() error { return os.Symlink(target+".none", socket) },
			"a folder":             func() error { return os.Mkdir(socket, 0o700) },
			"a pipe":               func() error { return syscall.Mkfifo(socket, 0o600) },
			"a socket of root's":   func() error { return leave(socket) },
			"a link to a socket":   func() error { return errors.Join(leave(target+".sock"), os.Symlink(target+".sock", socket)) },
			"a link as its lock":   func() error { return errors.Join(os.RemoveAll(socket+".lock"), os.Symlink(target, socket+".lock")) },
			"a folder as its lock": func() error { return errors.Join(os.RemoveAll(socket+".lock"), os.Mkdir(socket+".lock", 0o700)) },
		} {
			if err := place(); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(socket)
			lock := errors.Is(err, os.ErrNotExist) // it is about that
			if !lock && err != nil {
				t.Fatal(err)
			}
			if !lock && what != "a socket of root's" {
				m.chown(socket)
			}
			m.refused(what, r, filepath.Base(socket))
			if after, err := os.Lstat(socket); !lock && (err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime())) {
				t.Errorf("%s: %s was touched: %v, %v", r.folder, what, after, err)
			}
			if b, err := os.ReadFile(target); err != nil || string(b) != "keep" {
				t.Errorf("%s: %s: the target holds %q, %v", r.folder, what, b, err)
			}
			if _, err := os.Lstat(target + ".none"); err == nil {
				t.Errorf("%s: %s: the target was made", r.folder, what)
			}
			for _, f := range []string{socket, socket + ".lock", target + ".sock"} {
				if err := os.RemoveAll(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.launchOf(r)
		m.waitReady(r)
	}
}

// leave leaves a socket that nobody serves.
func leave(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}
