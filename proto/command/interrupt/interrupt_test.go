//go:build unix

package interrupt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// childVar in its environment makes the test's program a child: one that stops
// slowly.
const childVar = "NETPORT_TEST_INTERRUPT"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child says when it can be told to stop and when it has been, and takes until
// the end of its standard input to do so.
func child() {
	ctx, end := Context()
	defer end()
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("stops")
	io.Copy(io.Discard, os.Stdin)
}

// program is a running child.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Scanner
}

func start(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childVar+"=1")
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin, p.stdout = stdin, bufio.NewScanner(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.wait("ready")
	return p
}

// wait waits until the child says something.
func (p *program) wait(want string) {
	p.t.Helper()
	if !p.stdout.Scan() || p.stdout.Text() != want {
		p.cmd.Process.Kill()
		p.t.Fatalf("the child said %q, want %q; it ended: %v", p.stdout.Text(), want, p.cmd.Wait())
	}
}

func (p *program) send(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("send %v: %v", s, err)
	}
}

// status waits for the child's end and returns its exit code: -1 if it had to be
// killed.
func (p *program) status() int {
	killer := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer killer.Stop()
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func TestFirstSignalAsks(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := start(t)
		p.send(s)
		p.wait("stops")
		p.stdin.Close()
		if code := p.status(); code != 0 {
			t.Errorf("after %v: exit code %d", s, code)
		}
	}
}

// However soon it comes behind the first.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	const rounds = 30
	for range rounds {
		p := start(t)
		p.send(syscall.SIGTERM)
		p.send(syscall.SIGINT)
		if code := p.status(); code != 128+int(syscall.SIGINT) && code != 128+int(syscall.SIGTERM) {
			t.Fatalf("asked twice: exit code %d", code)
		}
		p = start(t)
		p.send(syscall.SIGTERM)
		p.wait("stops")
		p.send(syscall.SIGTERM)
		if code := p.status(); code != 128+int(syscall.SIGTERM) {
			t.Fatalf("asked twice with the same signal: exit code %d", code)
		}
	}
}
