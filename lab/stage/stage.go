// Package stage lets the lab's stories be told side by side, since most of what they do is wait: those of one package, and
// those of several test processes on one machine. It owns the machine's places for them. The file whose bytes are locked for
// them is all that it leaves behind; a process that ends, however it ends, leaves its places to others.
//
// A test that makes a topology (topo.New) is on the stage by itself, until it ends. A test whose subtests do calls
// testing.T.Parallel itself.
//
// A story that is on the stage for half of the time that its whole package has (go test -timeout) hangs: the process ends
// with its name and with what every goroutine waits for. The time that stories wait for a place does not count.
package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// places is how many stories there is room for: each keeps a processor busy for a fifth of the time.
func places() int64 { return int64(3 * runtime.NumCPU()) }

// on has the names of this process's tests that are on the stage.
var on = struct {
	sync.Mutex
	tests map[string]bool
}{tests: make(map[string]bool)}

// Enter makes the test one that runs beside others (testing.T.Parallel) and waits for a place on the stage, which it has
// until it ends. It does nothing for a test that is on the stage, and for the subtests of one.
func Enter(t testing.TB) {
	t.Helper()
	if isOn(t.Name()) {
		return
	}
	beside(t)
	EnterSerially(t)
}

func beside(t testing.TB) {
	if t, ok := t.(interface{ Parallel() }); ok {
		t.Parallel()
	}
}

// EnterIdle is Enter for a test that waits for long and does next to nothing meanwhile: it runs beside others and takes no
// place from them. It comes before all else in the test.
func EnterIdle(t testing.TB) {
	t.Helper()
	beside(t)
	enter(t, func() {})
}

// EnterSerially is Enter for a test beside which no other of its package may run. It comes before all else in the test.
func EnterSerially(t testing.TB) {
	t.Helper()
	file, err := takePlace()
	if err != nil {
		t.Fatalf("wait for a place on the lab's stage: %v", err)
	}
	enter(t, func() {
		if err := file.Close(); err != nil { // which gives the place back
			t.Errorf("leave the lab's stage: %v", err)
		}
	})
}

// enter has a test on the stage until it ends, and then calls leave.
func enter(t testing.TB, leave func()) {
	name := t.Name()
	setOn(name, true)
	stop := watch(name)
	t.Cleanup(func() {
		stop()
		setOn(name, false)
		leave()
	})
}

func setOn(test string, is bool) {
	on.Lock()
	defer on.Unlock()
	on.tests[test] = is
}

// isOn says whether a test or one that it is a part of is on the stage.
func isOn(test string) bool {
	on.Lock()
	defer on.Unlock()
	for !on.tests[test] {
		if test == "" {
			return false
		}
		test = test[:max(strings.LastIndexByte(test, '/'), 0)]
	}
	return true
}

// Byte 0 of the file is the door, at which all but one wait, in turn; the places come after it.
const door, firstPlace = 0, 1

// takePlace waits until a place is free. A place is a byte of the file, whose lock belongs to who has opened the file.
func takePlace() (*os.File, error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("netport-stage-%d", os.Geteuid()))
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = lockPlace(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return file, nil
}

func lockPlace(file *os.File) error {
	if err := lock(file, unix.F_OFD_SETLKW, unix.F_WRLCK, door); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for place := range places() {
			switch err := lock(file, unix.F_OFD_SETLK, unix.F_WRLCK, firstPlace+place); err {
			case nil:
				return lock(file, unix.F_OFD_SETLK, unix.F_UNLCK, door)
			case unix.EAGAIN, unix.EACCES: // taken
			default:
				return err
			}
		}
		<-tick.C
	}
}

// lock locks a byte of the file or gives it back.
func lock(file *os.File, how int, kind int16, at int64) error {
	for {
		err := unix.FcntlFlock(file.Fd(), how, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if err != unix.EINTR {
			return err
		}
	}
}
