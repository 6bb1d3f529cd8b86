// Package need says which capability or program a test depends on. A test that lacks one is skipped by name on a
// developer's machine and fails where CI=true, so that nothing is ever left out silently.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Root wants the right to make network and mount namespaces.
func Root(t testing.TB) {
	t.Helper()
	if err := canMakeNamespaces(); err != nil {
		missing(t, "root: network namespaces ("+err.Error()+")")
	}
}

// Program wants every named program in PATH.
func Program(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, "program "+name+" in PATH")
		}
	}
}

// missing ends the test: skipped, or failed where CI=true.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// canMakeNamespaces tries it, since being user 0 inside a container does not say enough.
var canMakeNamespaces = sync.OnceValue(func() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("running as user %d", uid)
	}
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread leaves with its namespaces
		tried <- unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	}()
	return <-tried
})
