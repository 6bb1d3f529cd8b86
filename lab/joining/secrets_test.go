package joining

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
)

// TestKeysThatOthersCanUseAreRefused: by their mode, by their owner, by the folders above them; in one line, by every role
// (T37).
func TestKeysThatOthersCanUseAreRefused(t *testing.T) {
	m := newMachine(t, nobody)
	for _, r := range residents {
		m.running[r.folder].stop()
	}
	const other = 12345
	for _, r := range residents {
		folder := m.folder(r.folder)
		key := filepath.Join(folder, "key.pem")
		moved := filepath.Join(m.dir, "moved-"+r.folder)
		change := func(what, text string, do, undo error) {
			if do != nil {
				t.Fatal(what, do)
			}
			m.refused(what, r, text)
			if undo != nil {
				t.Fatal(what, undo)
			}
		}
		for _, mode := range []os.FileMode{0o644, 0o640, 0o666, 0o601} {
			change(fmt.Sprintf("mode %04o", mode), fmt.Sprintf("its mode %04o lets others use it", mode), os.Chmod(key, mode), nil)
		}
		change("of another user", "key.pem: permission denied", errors.Join(os.Chmod(key, 0o600), os.Chown(key, other, other)), nil)
		change("a link of another user's", "belongs to user 12345", errors.Join(os.Rename(key, moved), os.Lchown(moved, 65534, 65534), os.Symlink(moved, key), os.Lchown(key, other, other)), nil)
		change("a link into a folder of everybody's", "others can write in the folder", errors.Join(os.Lchown(key, 65534, 65534), os.Chmod(m.dir, 0o777)), nil)
		change("a folder of everybody's", "others can write in the folder", errors.Join(os.Chmod(m.dir, 0o755), os.Remove(key), os.Rename(moved, key), os.Chmod(folder, 0o777)), nil)
		change("a folder of everybody's above", "others can write in the folder", errors.Join(os.Chmod(folder, 0o700), os.Chmod(m.dir, 0o777)), nil)
		change("a pipe", "not a regular file", errors.Join(os.Chmod(m.dir, 0o755), os.Rename(key, moved), syscall.Mkfifo(key, 0o600), os.Chown(key, 65534, 65534)), nil)
		if err := errors.Join(os.Remove(key), os.Rename(moved, key)); err != nil {
			t.Fatal(err)
		}
		m.launchOf(r)
		m.waitReady(r)
	}
}

// TestNoKeyLeavesAProcess: another program of the same user reads nothing of a daemon's memory, by ptrace, /proc or a core
// file, and neither its log nor what it says when it is killed in the middle of its work holds a key (T37).
func TestNoKeyLeavesAProcess(t *testing.T) {
	raiseCoreLimit(t)
	m := newMachine(t, nobody, "GOTRACEBACK=crash") // all there is to say, and then a core file
	// What can be done to a process that does not guard itself.
	victim := m.command("portal")
	victim.Path, victim.Args = "/bin/sleep", []string{"sleep", "1000"}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if err := attack(t, victim.Process.Pid); err != nil {
		t.Fatalf("what is to be refused is refused without a guard too: %v", err)
	}
	victim.Process.Signal(syscall.SIGQUIT)
	victim.End() // it fails
	if !dumped(victim) {
		t.Fatal("a process without a guard leaves no core file here: there is nothing to refuse")
	}
	for _, r := range residents {
		if err := attack(t, m.pid(r)); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: reading its memory: %v, want a refusal", r.folder, err)
		}
		p := m.running[r.folder]
		p.cmd.Process.Signal(syscall.SIGQUIT)
		p.wait() // it fails
		if dumped(p.cmd) {
			t.Errorf("%s has left a core file", r.folder)
		}
		said := p.text()
		if !strings.Contains(said, "goroutine") {
			t.Errorf("%s said nothing of its goroutines: %q", r.folder, said)
		}
		for _, key := range keysIn(t, m.folder(r.folder)) {
			if strings.Contains(said, key) {
				t.Errorf("%s has said a part of a key", r.folder)
			}
		}
	}
	if list, err := filepath.Glob(filepath.Join(m.dir, "core*")); err != nil || len(list) > 1 { // the victim's
		t.Errorf("core files: %v, %v", list, err)
	}
}

// attack reads a process's memory as its user would, in both ways.
func attack(t *testing.T, pid int) (err error) {
	t.Helper()
	asUser(t, uintptr(nobody.Uid), func() {
		f, ferr := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if ferr == nil {
			f.Close()
		}
		terr := unix.PtraceAttach(pid)
		if terr == nil {
			release(t, pid)
		}
		if (ferr == nil) != (terr == nil) {
			t.Errorf("process %d: /proc: %v, ptrace: %v", pid, ferr, terr)
		}
		err = ferr
	})
	return err
}

// release lets a process go that was attached to. That has sent it a signal to stop, which ends with the attachment only if
// it has come: one that was about to run a program stops for that first.
func release(t *testing.T, pid int) {
	t.Helper()
	await.Until(t, fmt.Sprintf("process %d stopped for who has attached to it", pid), func() error {
		var status unix.WaitStatus
		stopped, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
		switch {
		case err != nil:
			return err
		case stopped == 0:
			return errors.New("it goes on")
		case status.StopSignal() != unix.SIGSTOP:
			return errors.Join(fmt.Errorf("it stopped with status %#x", status), unix.PtraceCont(pid, 0))
		}
		return unix.PtraceDetach(pid)
	})
}

func dumped(cmd *topo.Cmd) bool {
	return cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
}

// raiseCoreLimit lets programs leave core files, from now on: stories beside this one have nothing against it.
func raiseCoreLimit(t *testing.T) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
}

// keysIn returns, for each private key below a folder, how a part of it would look in a text: lines of its PEM form, and
// its bytes as numbers of 8, as traces of goroutines show them.
func keysIn(t *testing.T, folder string) (parts []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "key.pem") && !strings.HasSuffix(name, "ca.key") {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return fmt.Errorf("%s holds no PEM", name)
		}
		for line := range bytes.Lines(b) {
			if !bytes.HasPrefix(line, []byte("-----")) && len(line) > 30 {
				parts = append(parts, strings.TrimSpace(string(line)))
			}
		}
		// Behind a header that all keys of the kind share stands what is secret.
		for i := 36; i+8 <= min(len(block.Bytes), 68); i++ {
			word := block.Bytes[i : i+8]
			back := make([]byte, 8)
			for j := range word {
				back[7-j] = word[j]
			}
			parts = append(parts, hex.EncodeToString(word), hex.EncodeToString(back), base64.StdEncoding.EncodeToString(word)[:10])
		}
		return nil
	})
	if err != nil || len(parts) == 0 {
		t.Fatalf("keys below %s: %d parts, %v", folder, len(parts), err)
	}
	return parts
}
