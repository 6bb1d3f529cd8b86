package topo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	logTimeout  = 30 * time.Second // WaitLog, on a slow machine
	stopTimeout = 10 * time.Second // from SIGTERM to SIGKILL
)

// Process is a program that runs on a node while the test goes on. Its methods may be called from any goroutine, but
// those that end the test only from the test's.
type Process struct {
	t    testing.TB
	name string // node/program, for messages
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
	err  error         // of the program; read after done

	// mu guards the following.
	mu      sync.Mutex
	log     []byte
	changed chan struct{} // closed and replaced when log grows
	file    *os.File      // the same log, kept if the test fails
}

// Start starts cmd, whose output becomes the process's log. The process is stopped with the test.
func (n *Node) Start(cmd *Cmd) *Process {
	n.t.Helper()
	program := cmd.Path[strings.LastIndexByte(cmd.Path, '/')+1:]
	n.processes++
	p := &Process{
		t: n.t, name: n.name + "/" + program, cmd: cmd.Cmd,
		done: make(chan struct{}), changed: make(chan struct{}),
		file: n.artifact(fmt.Sprintf("%02d-%s.log", n.processes, program)),
	}
	cmd.Stdout, cmd.Stderr = (*logWriter)(p), (*logWriter)(p)
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("%s: start: %v", p.name, errors.Join(err, p.file.Close()))
	}
	go p.wait()
	n.t.Cleanup(p.end)
	return p
}

func (p *Process) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	err = errors.Join(err, p.file.Close())
	p.mu.Unlock()
	p.err = err
	close(p.done)
}

// end stops the process when the test ends, and shows the end of its log if the test failed.
func (p *Process) end() {
	p.shutdown()
	if p.t.Failed() {
		p.t.Logf("log of %s, its end (%v):\n%s", p.name, p.err, lastLines(p.Log(), 30))
	}
}

// Stop asks the process to end (SIGTERM), waits until it has, and returns its exit status: 0 to 255, or -1 if a signal
// ended it. It ends the test if the process does not stop within 10 s.
func (p *Process) Stop() int {
	p.t.Helper()
	if !p.shutdown() {
		p.t.Fatalf("%s: did not stop within %v of SIGTERM; killed", p.name, stopTimeout)
	}
	return p.cmd.ProcessState.ExitCode()
}

// shutdown stops the process and says whether it went by itself.
func (p *Process) shutdown() bool {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%s: stop: %v", p.name, err)
	}
	select {
	case <-p.done:
		return true
	case <-time.After(stopTimeout):
	}
	p.Kill()
	return false
}

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.t.Errorf("%s: not gone %v after SIGKILL", p.name, Patience)
	}
}

// Signal sends a signal. A process that has ended gets none.
func (p *Process) Signal(signal os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%s: send %v: %v", p.name, signal, err)
	}
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the process ends by itself and returns its exit status, as Stop does. It ends the test if the process
// goes on for longer than Patience.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.t.Fatalf("%s: has not ended by itself within %v", p.name, Patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Log is what the process has written so far, standard output and standard error in one.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.log)
}

// Mark is the length of the log so far, for WaitLogAfter.
func (p *Process) Mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.log)
}

// WaitLog waits until a line of the log, old or new, holds text, and returns that line. It ends the test if the process
// ends without one, or after 30 s.
func (p *Process) WaitLog(text string) string {
	p.t.Helper()
	return p.WaitLogAfter(0, text)
}

// WaitLogAfter is WaitLog for what was written after the mark.
func (p *Process) WaitLogAfter(mark int, text string) string {
	p.t.Helper()
	timeout := time.After(logTimeout)
	for ended := false; ; {
		p.mu.Lock()
		line, found := findLine(string(p.log[mark:]), text)
		changed := p.changed
		p.mu.Unlock()
		switch {
		case found:
			return line
		case ended: // and the log was whole when it was searched
			p.t.Fatalf("%s: ended (%v) and never logged %q:\n%s", p.name, p.err, text, lastLines(p.Log(), 30))
		}
		select {
		case <-changed:
		case <-p.done:
			ended = true
		case <-timeout:
			p.t.Fatalf("%s: did not log %q within %v", p.name, text, logTimeout)
		}
	}
}

// logWriter takes what the program writes.
type logWriter Process

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, b...)
	close(w.changed)
	w.changed = make(chan struct{})
	return w.file.Write(b)
}

// findLine returns the first whole line that holds text.
func findLine(log, text string) (string, bool) {
	for line := range strings.Lines(log) {
		if strings.HasSuffix(line, "\n") && strings.Contains(line, text) {
			return strings.TrimSuffix(line, "\n"), true
		}
	}
	return "", false
}

func lastLines(log string, n int) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
