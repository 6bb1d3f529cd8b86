package await

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/netport/netport/lab/topo"
)

// Result is what a program that has ended left behind.
type Result struct {
	Stdout, Stderr string
	Status         int // exit status; -1 if a signal ended it
}

// Exit runs a program to its end, whatever that is. Where its output goes may be set before.
func Exit(t testing.TB, cmd *topo.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %q: %v", cmd.Args, err)
	}
	err := cmd.End()
	r := Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if _, itself := err.(*exec.ExitError); err != nil && !itself { // it was killed, or a copy to or from it failed
		t.Fatalf("%q: %v\n%s%s", cmd.Args, err, r.Stdout, r.Stderr)
	}
	return r
}

// Success runs a program that must end with status 0, and returns what it printed.
func Success(t testing.TB, cmd *topo.Cmd) string {
	t.Helper()
	r := Exit(t, cmd)
	if r.Status != 0 {
		t.Fatalf("%q: exit status %d\n%s%s", cmd.Args, r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// End waits until a program that runs has ended with status 0.
func End(t testing.TB, p *topo.Process) {
	t.Helper()
	if status := p.Wait(); status != 0 {
		t.Fatalf("ended with status %d:\n%s", status, p.Log())
	}
}

// Listening waits until a program on the host listens at a port; network is tcp or udp.
func Listening(t testing.TB, host *topo.Host, network string, port uint16) {
	t.Helper()
	Until(t, fmt.Sprintf("listening at %s port %d of %s", network, port, host.Name()), func() error {
		sockets := Success(t, host.Command("ss", "--numeric", "--listening", "--no-header", "--"+network))
		for line := range strings.Lines(sockets) {
			if fields := strings.Fields(line); len(fields) > 3 && strings.HasSuffix(fields[3], fmt.Sprint(":", port)) {
				return nil
			}
		}
		return fmt.Errorf("there are only\n%s", sockets)
	})
}
