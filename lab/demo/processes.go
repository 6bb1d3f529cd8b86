package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stopTime is for how long a program may take to end after SIGTERM.
const stopTime = 5 * time.Second

// tailLines is how much of a program's log a failure shows.
const tailLines = 15

// program is a process that the demo started and that is meant to run until the
// demo ends it.
type program struct {
	name string // as the reader knows it: "server", "laptop"
	pid  int
	log  string // the file with all that it wrote
	cmd  *exec.Cmd

	killed atomic.Bool   // by the demo: that it is gone is no failure
	done   chan struct{} // closed when the process is gone
	err    error         // why it is gone; valid after done
}

// failure is an error of the demo with the program in whose log the reason is
// likely to stand.
type failure struct {
	err     error
	program *program
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// blame makes err a failure of the program.
func (p *program) blame(err error) error {
	return &failure{err: err, program: p}
}

// tail returns the last lines of the program's log.
func (p *program) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// processes starts and ends the programs of the demo. It belongs to one
// goroutine.
type processes struct {
	logs    string // folder of the logs
	running []*program

	// died gets the first program that ended by itself.
	died chan *program
}

func newProcesses(logs string) *processes {
	return &processes{logs: logs, died: make(chan *program, 1)}
}

// start runs a program, its output going to a log of its own. With firstLine it waits
// for the first line on standard output and returns that as well.
func (ps *processes) start(name, path string, args []string, firstLine bool) (*program, string, error) {
	p := &program{name: name, log: filepath.Join(ps.logs, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // The process has a copy.

	p.cmd = exec.Command(path, args...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// Ctrl-C is for the demo, which then ends its programs in order.
		Setpgid: true,
		// Nothing may outlive a demo that was killed.
		Pdeathsig: syscall.SIGKILL,
	}
	var stdout *os.File
	if firstLine {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, "", fmt.Errorf("start %s: %w", name, err)
		}
		defer r.Close()
		defer w.Close()
		stdout, p.cmd.Stdout = r, w
	} else {
		p.cmd.Stdout = log
	}
	if err := p.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = p.cmd.Process.Pid
	ps.running = append(ps.running, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		if p.killed.Load() {
			return
		}
		select {
		case ps.died <- p:
		default: // Another one was first.
		}
	}()
	if !firstLine {
		return p, "", nil
	}
	p.cmd.Stdout.(*os.File).Close() // So that a dead process means end of file here.
	line, err := readLine(stdout)
	if err != nil {
		return p, "", p.blame(fmt.Errorf("start %s: it ended before it was ready", name))
	}
	return p, line, nil
}

// readLine reads up to the first newline.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}

// kill ends a program in the middle of what it does.
func (p *program) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill() // It may be gone already.
	<-p.done
}

// stop ends all programs, those started last first, and waits for them.
func (ps *processes) stop() {
	for i := len(ps.running) - 1; i >= 0; i-- {
		p := ps.running[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // It may be gone already.
		select {
		case <-p.done:
		case <-time.After(stopTime):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	ps.running = nil
}

// run runs a command to its end and returns its standard output. The error holds
// what the command said.
func run(ctx context.Context, path string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	said := strings.TrimSpace(stderr.String())
	if said == "" {
		said = strings.TrimSpace(stdout.String())
	}
	command := filepath.Base(path) + " " + strings.Join(args, " ")
	if said == "" {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return "", fmt.Errorf("%s: %w: %s", command, err, said)
}

// ask runs a command with --json and reads its answer into v.
func ask(ctx context.Context, v any, path string, args ...string) error {
	out, err := run(ctx, path, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(path), strings.Join(args, " "), err)
	}
	return nil
}

// watch returns a context that ends when one of the programs does; its cause
// then names the program.
func (ps *processes) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case p := <-ps.died:
			how := "it ended by itself"
			if p.err != nil {
				how = p.err.Error()
			}
			cancel(p.blame(fmt.Errorf("%s died: %s", p.name, how)))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-stopped
	}
}

// until polls ready until it returns nil, ctx ends or the time is up; the error of the
// last poll then says what was missing.
func until(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var missing error
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		// What a poll says that was cut off by the time limit is not the reason.
		if missing == nil || ctx.Err() == nil {
			missing = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return fmt.Errorf("not ready after %v: %w", limit, missing)
		}
	}
}
