// Package joining has the stories of joining with the real programs, on loopback and as an ordinary user: tokens, keys,
// interruptions, approval, and certificates that have expired; and of those who come with certificates that are not right,
// keys that are none and files that are wrong. Package fleet has those that need a network.
//
// The stories are told side by side (package stage). So each world has an address of its own, what a test sets in the
// environment is its programs' alone, and what is all of the test process's, as its umask, is set by stories that are alone.
package joining

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

const domain = "example.org"

// world is one server with its folder; everything else joins it.
type world struct {
	t       *testing.T
	dir     string
	ip      string // a loopback address that no other world uses
	ports   int    // of it that were given away
	address string // of the server
	server  *program

	environment []string            // of the programs, besides the test's
	user        *syscall.Credential // of all that is started; nil: the test's own
}

// newWorld makes a server and starts it.
func newWorld(t *testing.T, options ...daemon.Option) *world {
	t.Helper()
	return newWorldOf(t, nil, nil, options...)
}

// newWorldOf is newWorld with programs of another user, and with more in their environment.
func newWorldOf(t *testing.T, user *syscall.Credential, environment []string, options ...daemon.Option) *world {
	t.Helper()
	w := emptyWorld(t, user, environment)
	w.run("server", nil, "init", "--dir", w.folder("server"), "--domain", domain, "--address", w.address)
	if len(options) > 0 {
		if err := daemon.EditConfig(w.config("server"), options...); err != nil {
			t.Fatal(err)
		}
	}
	w.startServer("server")
	return w
}

// worlds counts those of this process.
var worlds atomic.Uint32

// emptyWorld is a world with the programs, and without a server. The test is on the lab's stage from then on.
func emptyWorld(t *testing.T, user *syscall.Credential, environment []string) *world {
	t.Helper()
	stage.Enter(t)
	// The process's number keeps apart those who test at once on one machine, and the set bit from what all use.
	pid := os.Getpid()
	w := &world{t: t, dir: t.TempDir(), user: user, environment: environment,
		ip: netip.AddrFrom4([4]byte{127, byte(pid>>8) | 0x80, byte(pid), byte(worlds.Add(1))}).String()}
	if user != nil {
		need.Root(t) // to start programs as another user
		if err := errors.Join(os.Chmod(filepath.Dir(w.dir), 0o755), os.Chmod(w.dir, 0o755), os.Chown(w.dir, int(user.Uid), int(user.Gid))); err != nil {
			t.Fatal(err)
		}
	}
	if err := daemon.Install(w.dir); err != nil {
		t.Fatal(err)
	}
	w.address = w.free()
	return w
}

// free returns an address that nobody listens at, nor will: its port is none of a relay's sessions, and none that the
// system gives out.
func (w *world) free() string {
	w.ports++
	return fmt.Sprintf("%s:%d", w.ip, 10_000+w.ports)
}

// startServer starts the server of a folder and waits until it answers its command line.
func (w *world) startServer(name string) {
	w.t.Helper()
	w.server = w.start("server", name)
	await.Until(w.t, name+" ready", func() error { return w.try("server", nil, "status", "--config", w.config(name)) })
}

func (w *world) folder(name string) string { return filepath.Join(w.dir, name) }
func (w *world) config(name string) string { return filepath.Join(w.folder(name), "config.toml") }

func (w *world) command(role string, args ...string) *topo.Cmd {
	cmd := topo.Here(filepath.Join(w.dir, "netport-"+role), args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), w.environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: w.user}
	return cmd
}

// try runs a command; the error has what it said.
func (w *world) try(role string, stdin io.Reader, args ...string) error {
	_, err := w.output(role, stdin, args...)
	return err
}

func (w *world) output(role string, stdin io.Reader, args ...string) (string, error) {
	cmd := w.command(role, args...)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("netport-%s %s: %w: %s", role, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// run is a command that has to succeed.
func (w *world) run(role string, stdin io.Reader, args ...string) string {
	w.t.Helper()
	out, err := w.output(role, stdin, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// ask runs a command of the server's.
func (w *world) ask(args ...string) string {
	w.t.Helper()
	return w.run("server", nil, append(args, "--config", w.config("server"))...)
}

// invite returns a token.
func (w *world) invite(role, name string, more ...string) string {
	w.t.Helper()
	return strings.TrimSpace(w.ask(append([]string{"invite", role, name}, more...)...))
}

// join makes a folder a portal or relay, with a token.
func (w *world) join(role, name, token string) error {
	return w.try(role, strings.NewReader(token), "join", "--config", w.config(name))
}

// status is what a portal says, as far as these tests look at it.
type status struct {
	Certificate time.Time `json:"certificate_until"`
	Identity    struct {
		Key         string `json:"key"`
		Revocations uint64 `json:"revocations_epoch"`
		Authorities uint64 `json:"authorities_version"`
	} `json:"identity"`
	Server struct {
		Connected bool `json:"connected"`
	} `json:"server"`
}

// waitStatus waits until a portal says what is wanted.
func (w *world) waitStatus(name, what string, limit time.Duration, ready func(status) bool) status {
	w.t.Helper()
	var s status
	await.Within(w.t, name+": "+what, limit, func() error {
		s = status{}
		out, err := w.output("portal", nil, "status", "--json", "--config", w.config(name))
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err == nil && !ready(s) {
			err = fmt.Errorf("it says %+v", s)
		}
		return err
	})
	return s
}

// program is a process that goes on beside the test.
type program struct {
	t    *testing.T
	name string
	cmd  *topo.Cmd
	done chan struct{} // closed when it has ended
	err  error         // and how; valid after done

	mu  sync.Mutex
	log bytes.Buffer
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range bytes.Lines(b) {
		fmt.Fprintf(p.t.Output(), "%s: %s", p.name, line)
	}
	return p.log.Write(b)
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// waitLog waits until the program has written a text to its standard error.
func (p *program) waitLog(text string) {
	p.t.Helper()
	await.Until(p.t, p.name+" says "+text, func() error {
		if !strings.Contains(p.text(), text) {
			return fmt.Errorf("it said %q", p.text())
		}
		return nil
	})
}

// start starts the daemon of a folder.
func (w *world) start(role, name string) *program {
	w.t.Helper()
	return w.launch(name, w.command(role, "run", "--config", w.config(name)))
}

func (w *world) launch(name string, cmd *topo.Cmd) *program {
	w.t.Helper()
	p := &program{t: w.t, name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = p
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	w.t.Cleanup(p.stop)
	return p
}

// wait waits until the program has ended by itself, and returns how.
func (p *program) wait() error {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(await.Patience):
		p.t.Fatalf("%s runs after %v; it said %q", p.name, await.Patience, p.text())
	}
	return p.err
}

// stop ends the program and waits for it.
func (p *program) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// kill ends the program at once.
func (p *program) kill() {
	p.t.Helper()
	p.cmd.Process.Kill()
	await.Receive(p.t, p.name+"'s end after SIGKILL", p.done)
}
