package local

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// nobodyID is the user that is nobody on every machine.
const nobodyID = 65534

// asNobody runs f on a thread of its own that has become user 65534 for good.
func asNobody(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		// The raw call changes this thread alone; package syscall's changes all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobodyID, nobodyID, nobodyID); errno != 0 {
			t.Errorf("become nobody: %v", errno)
			return
		}
		f()
	}()
	<-done
}

// TestOtherUsersAreRefused: first by the socket's mode, then, were that ever
// wider, by who they are.
func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to call as another user")
	}
	path, _ := serve(t, func(s *Server) {
		s.Handle("ok", func(context.Context, json.RawMessage) (any, error) { return 1, nil })
	})
	// Both folders that the testing package made let others through.
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	asNobody(t, func() {
		oneLine(t, "mode 0600", Call(t.Context(), path, "ok", nil, nil), "permission denied", "as root")
	})
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		oneLine(t, "mode 0666", Call(t.Context(), path, "ok", nil, nil), "serves only its own user and root")
	})
	if err := Call(t.Context(), path, "ok", nil, nil); err != nil {
		t.Errorf("the owner: %v", err)
	}
}
