package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/topo"
)

// patience bounds whatever a test waits for, on a slow machine.
const patience = 60 * time.Second

// result is what a program that has ended left behind.
type result struct {
	stdout, stderr string
	status         int // exit status; -1 if a signal ended it
}

// run runs a program to its end, whatever that is. Where its output goes may be set before.
func run(t *testing.T, cmd *topo.Cmd) result {
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
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if !late.Stop() {
		t.Fatalf("%q did not end within %v:\n%s%s", cmd.Args, patience, r.stdout, r.stderr)
	}
	if err != nil && cmd.ProcessState.Success() { // of a copy to or from it
		t.Fatalf("%q: %v", cmd.Args, err)
	}
	return r
}

// succeed runs a program that must end with status 0, and returns what it printed.
func succeed(t *testing.T, cmd *topo.Cmd) string {
	t.Helper()
	r := run(t, cmd)
	if r.status != 0 {
		t.Fatalf("%q: exit status %d\n%s%s", cmd.Args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// waitFor tries again and again until ready returns nil; its last error says what was missing.
func waitFor(t *testing.T, what string, ready func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not %s within %v: %v", what, patience, err)
		}
	}
}

// waitListening waits until a program on the host listens at a port; network is tcp or udp.
func waitListening(t *testing.T, host *topo.Host, network string, port uint16) {
	t.Helper()
	waitFor(t, fmt.Sprintf("listening at %s port %d of %s", network, port, host.Name()), func() error {
		sockets := succeed(t, host.Command("ss", "--numeric", "--listening", "--no-header", "--"+network))
		for line := range strings.Lines(sockets) {
			if fields := strings.Fields(line); len(fields) > 3 && strings.HasSuffix(fields[3], fmt.Sprint(":", port)) {
				return nil
			}
		}
		return fmt.Errorf("there are only\n%s", sockets)
	})
}

// waitEnd waits until a program has ended with status 0.
func waitEnd(t *testing.T, p *topo.Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("still runs after %v:\n%s", patience, p.Log())
	}
	if status := p.Wait(); status != 0 {
		t.Fatalf("ended with status %d:\n%s", status, p.Log())
	}
}
