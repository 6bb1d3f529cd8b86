// Package networktest runs tests in network namespaces of their own.
package networktest

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mark is set in the environment of a test's second process.
const mark = "NETPORT_TEST_NAMESPACE"

// InNamespace runs the calling test again in a network namespace, in another
// process, and reports whether this is that process: the caller returns if it is
// not. Without the right to make namespaces the test is skipped, and fails where
// CI=true.
func InNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		missing(t, "root: network namespaces ("+err.Error()+")")
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// Run runs a command whose words are apart by spaces, in the namespace of the
// test. It wants the program in PATH as InNamespace wants its rights.
func Run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if _, err := exec.LookPath(words[0]); err != nil {
		missing(t, "program "+words[0]+" in PATH")
	}
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// missing ends the test: skipped, or failed where CI=true.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}
