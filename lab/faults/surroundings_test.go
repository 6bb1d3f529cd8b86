package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// daemons are the three, in the order in which they may be stopped and started.
func (w *world) daemons() []*daemon.Daemon {
	return []*daemon.Daemon{w.factory.Daemon, w.laptop.Daemon, w.relay.Daemon, w.Server.Daemon}
}

// B95: without a home, with an open umask, in a locale that there is not, in a folder that is gone and without any of the standard streams, a daemon
// runs, its files are its own, and no socket of it takes the place of a standard stream.
func TestDaemonsRunInPoorSurroundings(t *testing.T) {
	const poor = `umask 000; unset HOME; export LC_ALL=xx_XX.none; mkdir "$0.gone"; cd "$0.gone"; rmdir "$0.gone"; exec "$@" <&- >&- 2>&-`
	w := newWorld(t)
	w.allow(w.other())
	ln := w.plc.Listen(otherPort)
	for _, d := range w.daemons() {
		d.Stop()
		run := d.Command("run")
		cmd := d.Host().Command("sh", append([]string{"-c", poor, filepath.Join(d.Dir(), "cwd")}, run.Args...)...).As(daemon.User)
		p := d.Host().Start(cmd)
		await.Until(t, d.Name()+" answers", func() error {
			out, err := d.Command("status").CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
		for fd := range 3 {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.PID(), fd))
			if err != nil || to != "/dev/null" {
				t.Errorf("%s: descriptor %d is %q, %v; want /dev/null", d.Name(), fd, to, err)
			}
		}
		wantOwnFiles(t, d)
	}
	w.waitUp("other")
	w.connect(otherEntry, ln)
}

// waitUp is WaitUp for daemons that the test has started itself.
func (w *world) waitUp(forward string) {
	w.t.Helper()
	await.Until(w.t, forward+" up", func() error {
		out, err := w.laptop.Command("status", "--json").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, f := range w.laptop.Status().Forwards {
			if f.Name == forward && f.State == "up" {
				return nil
			}
		}
		return fmt.Errorf("it says\n%s", out)
	})
}

// wantOwnFiles wants nobody but the daemon's user to be able to write, or to read what is secret.
func wantOwnFiles(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	err := filepath.WalkDir(d.Dir(), func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // just removed
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		open := info.Mode().Perm() & 0o022
		if base := filepath.Base(name); strings.HasSuffix(base, "key.pem") || strings.HasSuffix(base, ".sock") || strings.HasSuffix(base, ".db") {
			open = info.Mode().Perm() & 0o077
		}
		if open != 0 {
			t.Errorf("%s: %s has the mode %v", d.Name(), name, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// B98: a second daemon on the same state refuses to start, in one line, and does not disturb the first.
func TestSecondInstanceRefuses(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	p := w.connect(otherEntry, w.plc.Listen(otherPort))
	for _, d := range w.daemons() {
		out, err := d.Command("run").CombinedOutput()
		var last string
		for line := range strings.Lines(string(out)) {
			last = line
		}
		t.Logf("%s: %s", d.Name(), last)
		if code := exitCode(err); code != 1 || !strings.Contains(last, "netport-") {
			t.Errorf("%s: a second instance ended with %v and said\n%s", d.Name(), err, out)
		}
	}
	p.alive(t)
	w.laptop.WaitUp("other")
	wantOnline(t, w)
}

func exitCode(err error) int {
	exit, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok {
		return -1
	}
	return exit.ExitCode()
}

// wantOnline wants both portals and the relay to be connected, as the server sees it.
func wantOnline(t *testing.T, w *world) {
	t.Helper()
	if out := w.Server.Run("status", "--wide"); !strings.Contains(out, "2 of 2 connected") || !strings.Contains(out, "1 of 1 ready") {
		t.Errorf("not all are connected:\n%s", out)
	}
}

// B96: SIGHUP, SIGPIPE and the signals that nobody uses change nothing; a second SIGTERM ends a daemon whatever it is still doing.
func TestDaemonsOutliveSignals(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	p := w.connect(otherEntry, w.plc.Listen(otherPort))
	for _, d := range w.daemons() {
		mark := d.Process().Mark()
		for _, s := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP} {
			d.Process().Signal(s)
		}
		wantLogged(t, d, mark, "configuration read anew")
	}
	p.alive(t)
	wantOnline(t, w)
	for _, d := range w.daemons() {
		d.Process().Signal(syscall.SIGTERM)
		d.Process().Signal(syscall.SIGTERM)
		select {
		case <-d.Process().Done():
		case <-time.After(3 * time.Second):
			t.Errorf("%s still runs 3 s after two SIGTERM", d.Name())
		}
	}
}

// B96: a daemon that is interrupted while it starts ends, without a crash and whatever it is doing, and starts the next time.
func TestDaemonsInterruptedWhileTheyStart(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	for _, d := range w.daemons() {
		d.Stop()
		start := time.Now()
		d.Launch()
		await.Until(t, d.Name()+" answers", func() error { return d.Command("status").Run() })
		ready := time.Since(start)
		d.Stop()
		const moments = 8
		for i := range moments {
			d.Launch()
			await.Passing(t, ready*time.Duration(i)/moments)
			d.Process().Signal(syscall.SIGINT)
			if status := d.Process().Wait(); status != 0 && status != -1 { // by the signal itself, before the program's first step
				t.Errorf("%s, interrupted after %d/%d of its start, ended with %d:\n%s", d.Name(), i, moments, status, d.Log())
			}
			if strings.Contains(d.Log(), "goroutine ") {
				t.Errorf("%s crashed:\n%s", d.Name(), d.Log())
			}
		}
	}
	for _, d := range []*daemon.Daemon{w.Server.Daemon, w.relay.Daemon, w.factory.Daemon, w.laptop.Daemon} {
		d.Launch()
		await.Until(t, d.Name()+" answers", func() error { return d.Command("status").Run() })
	}
	w.waitUp("other")
	w.connect(otherEntry, w.plc.Listen(otherPort))
}

// B99: what a command cannot print, it says, and fails: on a full device, and to a reader that is gone.
func TestCommandsThatCannotPrintFail(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	r, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer closed.Close()
	for stdout, why := range map[*os.File]string{full: "no space left on device", closed: "broken pipe"} {
		for d, commands := range map[*daemon.Daemon][]string{
			w.Server.Daemon:  {"status", "portals", "sessions --json", "audit", "policy show", "invite portal new-" + why[:2]},
			w.relay.Daemon:   {"status", "status --json"},
			w.laptop.Daemon:  {"status", "metrics", "explain other"},
			w.factory.Daemon: {"status --json"},
		} {
			for _, command := range commands {
				cmd := d.Command(strings.Fields(command)...)
				var stderr strings.Builder
				cmd.Stdout, cmd.Stderr = stdout, &stderr
				if err := cmd.Run(); exitCode(err) != 1 || !strings.Contains(lastLine(stderr.String()), why) {
					t.Errorf("%s %s, with an output that says %q: %v:\n%s", d.Name(), command, why, err, stderr.String())
				}
			}
		}
	}
}

// B99: nobody reads the log, or whoever did is gone; the data does not wait for it.
func TestLogThatNobodyReadsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for name, closed := range map[string]bool{"full": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.allow(w.echoes()[0], w.other())
			for _, d := range w.daemons() {
				d.Stop()
				d.Configure("log_level", "debug")
			}
			for _, d := range []*daemon.Daemon{w.Server.Daemon, w.relay.Daemon, w.factory.Daemon, w.laptop.Daemon} {
				startUnread(t, d, closed)
			}
			w.waitUp("other")
			w.waitUp("tcp")
			p := w.connect(otherEntry, w.plc.Listen(otherPort))
			// More lines than a pipe and the daemons' own queues hold.
			defer await.Greet(w.plc.Listen(echoPort))()
			const connections = 3000
			for i := range connections {
				if err := w.served(entryPort); err != nil {
					t.Fatalf("connection %d of %d: %v", i, connections, err)
				}
			}
			p.alive(t)
			wantOnline(t, w)
		})
	}
}

// startUnread starts a daemon whose log goes into a pipe that nobody reads, or that is closed.
func startUnread(t *testing.T, d *daemon.Daemon, closed bool) {
	t.Helper()
	r, log, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := d.Command("run")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	if closed {
		r.Close()
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("%s: %v", d.Name(), err)
		}
		if err := cmd.End(); err != nil {
			t.Errorf("%s: its end: %v", d.Name(), err)
		}
		r.Close()
	})
}
