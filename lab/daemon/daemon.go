package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
)

// patience is for how long a condition is waited for, on a slow machine.
const patience = 30 * time.Second

// Daemon is what server, relay and portal share: a program with its files on a host. It may be stopped and started
// again any number of times.
type Daemon struct {
	t       testing.TB
	role    string
	name    string
	host    *topo.Host
	program string
	user    string    // whom it runs as
	dir     string    // of its files; only its user can read it
	rights  []uintptr // capabilities that it is started with

	installed int // other programs, to number them

	process *topo.Process // that was started last; nil before
}

// newDaemon is one that carries its host's name; its program is in the folder bin.
func newDaemon(t testing.TB, bin, role string, host *topo.Host) *Daemon {
	t.Helper()
	return &Daemon{
		t: t, role: role, name: host.Name(), host: host, user: User,
		program: programFile(bin, role),
		dir:     filepath.Join(host.DirOf(User), role),
	}
}

// Name is the daemon's name in its identity: its host's.
func (d *Daemon) Name() string { return d.name }

// Host is where the daemon runs.
func (d *Daemon) Host() *topo.Host { return d.host }

// Dir is the folder with the daemon's config.toml, certificate, key and state.
func (d *Daemon) Dir() string { return d.dir }

// Process is the daemon's process that was started last: its log, its number, its end.
func (d *Daemon) Process() *topo.Process { return d.process }

// Suspend stops the daemon, as a machine that sleeps does. When it returns none of its threads runs any more; where the
// machine is busy some still do when the signal has been sent.
func (d *Daemon) Suspend() {
	d.t.Helper()
	d.process.Signal(syscall.SIGSTOP)
	await.Until(d.t, d.Name()+" is suspended", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.process.PID()))
		for _, file := range threads {
			stat, err := os.ReadFile(file)
			if _, state, _ := bytes.Cut(stat, []byte(") ")); err == nil && !bytes.HasPrefix(state, []byte("T")) {
				return fmt.Errorf("%s: %s", file, stat)
			}
		}
		return err
	})
}

// Resume has a suspended daemon go on.
func (d *Daemon) Resume() {
	d.t.Helper()
	d.process.Signal(syscall.SIGCONT)
}

// config is the daemon's configuration file.
func (d *Daemon) config() string { return filepath.Join(d.dir, "config.toml") }

// Launch starts the daemon and does not wait until it is ready: for one that may not become that.
func (d *Daemon) Launch() {
	d.t.Helper()
	d.LaunchBy(d.Command("run").With(d.rights...))
}

// LaunchBy is Launch by another command, which becomes the daemon: what a test has made of Command("run").
func (d *Daemon) LaunchBy(cmd *topo.Cmd) {
	d.t.Helper()
	d.process = d.host.Start(cmd)
}

// Stop asks the daemon to end and wants exit status 0.
func (d *Daemon) Stop() {
	d.t.Helper()
	if status := d.process.Stop(); status != 0 {
		d.t.Fatalf("%s %s: stopped with exit status %d, want 0", d.role, d.name, status)
	}
}

// Kill ends the daemon without any warning (SIGKILL).
func (d *Daemon) Kill() { d.process.Kill() }

// Log is what the daemon has written since it was started last.
func (d *Daemon) Log() string { return d.process.Log() }

// WaitLog waits until the daemon has logged a line with the text, since it was started last, and returns the line.
func (d *Daemon) WaitLog(text string) string {
	d.t.Helper()
	return d.process.WaitLog(text)
}

// Command returns a command of the daemon's program, on its host, with its configuration and as its user, to be run by the
// caller: for instance Command("connect", "factory", "tcp://127.0.0.1:22").
func (d *Daemon) Command(args ...string) *topo.Cmd {
	d.t.Helper()
	return d.unconfigured(append(args, "--config", d.config())...)
}

// unconfigured is a command of the program without its configuration.
func (d *Daemon) unconfigured(args ...string) *topo.Cmd {
	d.t.Helper()
	return d.host.Command(d.program, args...).As(d.user)
}

// Run runs a command of the daemon's program and returns what it printed. It ends the test if the command fails.
func (d *Daemon) Run(args ...string) string {
	d.t.Helper()
	out, err := d.output(d.Command(args...))
	if err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
	return out
}

// output runs a command; the error says what it said.
func (d *Daemon) output(cmd *topo.Cmd) (string, error) {
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	var stderr []byte
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		stderr = exit.Stderr
	}
	return "", fmt.Errorf("netport-%s %s: %w\n%s%s", d.role, strings.Join(cmd.Args[1:], " "), err, out, stderr)
}

// ask runs a command with --json and reads its answer into v.
func (d *Daemon) ask(v any, args ...string) error {
	d.t.Helper()
	out, err := d.output(d.Command(append(args, "--json")...))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("netport-%s %s: %w in %s", d.role, strings.Join(args, " "), err, out)
	}
	return nil
}

// until asks the daemon again and again until ready returns nil. It ends the test if that takes too long or the daemon
// dies: what says what was waited for, and the last error what was missing.
func (d *Daemon) until(what string, ready func() error) {
	d.t.Helper()
	begin := time.Now()
	for late := time.After(patience); ; {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-time.After(await.Pause(time.Since(begin))):
		case <-d.process.Done():
			d.t.Fatalf("%s %s: ended with status %d while it was waited for: %s", d.role, d.name, d.process.Wait(), what)
		case <-late:
			d.t.Fatalf("%s %s: not %s after %v: %v", d.role, d.name, what, patience, err)
		}
	}
}
