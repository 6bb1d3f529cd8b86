package ns_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/ns"
)

func newNamespace(t *testing.T) *ns.Namespace {
	t.Helper()
	need.Root(t)
	n, err := ns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// current is the network namespace of the calling thread.
func current(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func nameOf(n *ns.Namespace) string { return fmt.Sprintf("net:[%d]", n.Inode()) }

func do(t *testing.T, n *ns.Namespace, f func()) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

func TestDoRunsInsideAndReturns(t *testing.T) {
	a, b := newNamespace(t), newNamespace(t)
	outside := current(t)
	do(t, a, func() {
		if got, want := current(t), nameOf(a); got != want {
			t.Errorf("in a: %s, want %s", got, want)
		}
		do(t, b, func() {
			if got, want := current(t), nameOf(b); got != want {
				t.Errorf("in b: %s, want %s", got, want)
			}
		})
		if got, want := current(t), nameOf(a); got != want {
			t.Errorf("back in a: %s, want %s", got, want)
		}
	})
	if got := current(t); got != outside {
		t.Errorf("back outside: %s, want %s", got, outside)
	}
}

func TestDoReturnsFromAPanic(t *testing.T) {
	n := newNamespace(t)
	outside := current(t)
	func() {
		defer func() { recover() }()
		do(t, n, func() { panic("on purpose") })
	}()
	if got := current(t); got != outside {
		t.Errorf("after a panic in %s, want %s", got, outside)
	}
}

func TestManyGoroutinesStayInTheirNamespaces(t *testing.T) {
	spaces := []*ns.Namespace{newNamespace(t), newNamespace(t), newNamespace(t)}
	outside := current(t)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			n := spaces[i%len(spaces)]
			for range 50 {
				if err := n.Do(func() {
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Error(err)
						return
					}
					ln.Close()
					if got, want := current(t), nameOf(n); got != want {
						t.Errorf("inside: %s, want %s", got, want)
					}
				}); err != nil {
					t.Error(err)
				}
				if got := current(t); got != outside {
					t.Errorf("outside: %s, want %s", got, outside)
				}
			}
		})
	}
	wg.Wait()
}

func TestSocketsOfTwoNamespacesDoNotMeet(t *testing.T) {
	a, b := newNamespace(t), newNamespace(t)
	var ln net.Listener
	var err error
	do(t, a, func() { ln, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for n, want := range map[*ns.Namespace]bool{a: true, b: false} {
		do(t, n, func() {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if got := err == nil; got != want {
				t.Errorf("dial: %v, want success %t", err, want)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}

func TestStartedProgramSeesItsNamespaceOnly(t *testing.T) {
	n := newNamespace(t)
	cmd := exec.Command("sh", "-c", "readlink /proc/self/ns/net; cat /proc/net/dev; ls -A /run")
	var out strings.Builder
	cmd.Stdout = &out
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, nameOf(n)) || strings.Count(got, ":") != 2 {
		t.Errorf("want %s, the device lo and an empty /run, got:\n%s", nameOf(n), got)
	}
}

func TestCloseKillsWhatRuns(t *testing.T) {
	need.Root(t)
	n, err := ns.New()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the program ended well, want it killed")
	}
}
