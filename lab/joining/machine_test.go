package joining

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
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

// TestTwoDaemonsShareNoState: the second on a state is refused, by whatever name it comes to it, and is told which process
// is the first; when that was killed another takes its place at once (B98).
func TestTwoDaemonsShareNoState(t *testing.T) {
	m := newMachine(t, nil)
	for _, r := range residents {
		first := fmt.Sprintf("another daemon runs there (process %d)", m.pid(r))
		m.refused("the same configuration", r, first)
		// A folder with another configuration and socket, whose state is the first's by another name.
		twin := resident{r.role, "twin-of-" + r.folder, r.socket}
		copyFolder(t, m.folder(r.folder), m.folder(twin.folder))
		state := filepath.Join(m.folder(twin.folder), "link")
		to := filepath.Join(m.folder(r.folder), "state")
		if r.role == "server" {
			to = m.folder(r.folder)
		}
		if err := os.Symlink(to, state); err != nil {
			t.Fatal(err)
		}
		if err := daemon.EditConfig(m.config(twin.folder), daemon.Set("state", "link"), daemon.Set("socket", "twin.sock")); err != nil {
			t.Fatal(err)
		}
		m.refused("the same state", twin, first)
		m.waitReady(r)
	}
	for _, r := range residents {
		m.running[r.folder].kill()
		m.launchOf(r)
		m.waitReady(r)
	}
}

// copyFolder copies the regular files of a folder, with their modes, as an administrator would for a second machine.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := topo.Here("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := filepath.WalkDir(to, func(name string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".sock") {
			err = os.Remove(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTwoMachinesWithOneIdentity: a portal's whole folder was copied to another machine, and both run. They change places
// every 10 s at most; the operator and both portals are told, and the record is there (F32).
func TestTwoMachinesWithOneIdentity(t *testing.T) {
	stage.EnterIdle(t)
	m := newMachine(t, nil)
	ann := residents[3]
	m.running[ann.folder].stop()
	copyFolder(t, m.folder(ann.folder), m.folder("copy"))
	m.launchOf(ann)
	m.waitReady(ann)
	m.start("portal", "copy")
	const limit = 90 * time.Second
	await.Within(t, "the server names both", limit, func() error {
		if out := m.ask("status", "--wide"); !strings.Contains(out, "two machines use the identity of portal ann") {
			return errors.New(out)
		}
		return nil
	})
	if out := m.ask("portals", "--wide"); !strings.Contains(out, "TWO MACHINES") || strings.Count(out, " and 127.0.0.1:") != 1 {
		t.Errorf("netport-server portals:\n%s", out)
	}
	if out := m.ask("audit", "--wide"); !strings.Contains(out, "two machines use one identity: spiffe://"+domain+"/portal/ann, from 127.0.0.1:") {
		t.Errorf("netport-server audit:\n%s", out)
	}
	if n := strings.Count(m.server.text(), "two machines use one identity"); n != 1 {
		t.Errorf("the server's log has it %d times", n)
	}
	for _, name := range []string{ann.folder, "copy"} {
		await.Within(t, name+" says it", limit, func() error {
			out, err := m.output("portal", nil, "status", "--wide", "--config", m.config(name))
			if err == nil && !strings.Contains(out, "another machine with this identity has connected") {
				err = errors.New(out)
			}
			return err
		})
	}
	var last time.Time
	for line := range strings.Lines(m.server.text()) {
		if !strings.Contains(line, "newer connection takes over") {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil {
			t.Fatal(err)
		}
		if !last.IsZero() && at.Sub(last) < 9*time.Second {
			t.Errorf("they changed places within %v", at.Sub(last))
		}
		last = at
	}
}

// privileges returns lines of /proc/PID/status, the same of every thread.
func privileges(t *testing.T, pid int) string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 3 {
		t.Fatalf("threads of process %d: %v, %v", pid, tasks, err)
	}
	seen := make(map[string]bool)
	var text string
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		text = ""
		for line := range strings.Lines(string(b)) {
			for _, key := range []string{"Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Groups"} {
				if strings.HasPrefix(line, key+":") {
					text += strings.Join(strings.Fields(line), " ") + "\n"
				}
			}
		}
		seen[text] = true
	}
	if len(seen) != 1 {
		t.Errorf("threads of process %d differ: %v", pid, seen)
	}
	return text
}

// TestDaemonsGiveBackTheirRights: started as root, with supplementary groups, each keeps the right to listen at low ports
// if it may still need it, and no other. The relay carries in user space here; package kernel has the other (T38, G12).
func TestDaemonsGiveBackTheirRights(t *testing.T) {
	need.Root(t)
	m := newMachine(t, &syscall.Credential{Groups: []uint32{4, 27}})
	const none, low = "0000000000000000", "0000000000000400"
	for _, r := range residents {
		kept := low
		if r.role == "relay" {
			kept = none
		}
		want := fmt.Sprintf("Uid: 0 0 0 0\nGroups:\nCapInh: %s\nCapPrm: %s\nCapEff: %s\nCapBnd: %s\nCapAmb: %s\nNoNewPrivs: 1\n", none, kept, kept, kept, none)
		if got := privileges(t, m.pid(r)); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", r.folder, got, want)
		}
	}
	m.carries(t)
}

// TestDaemonsNeedNoRight: as a user without any capability, present or to come, all work (T38, G12).
func TestDaemonsNeedNoRight(t *testing.T) {
	need.Program(t, "setpriv")
	m := newMachine(t, nobody)
	m.carries(t)
	const none = "0000000000000000"
	for _, r := range residents {
		m.running[r.folder].stop()
		cmd := m.command("relay") // for its folder and its end
		run := []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
			filepath.Join(m.dir, "netport-"+r.role), "run", "--config", m.config(r.folder)}
		cmd.Path, cmd.Args, cmd.SysProcAttr.Credential = "/usr/bin/setpriv", run, nil
		m.running[r.folder] = m.launch(r.folder, cmd)
		m.waitReady(r)
		want := fmt.Sprintf("Uid: 65534 65534 65534 65534\nGroups:\nCapInh: %s\nCapPrm: %s\nCapEff: %s\nCapBnd: %s\nCapAmb: %s\nNoNewPrivs: 1\n", none, none, none, none, none)
		if got := privileges(t, m.pid(r)); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", r.folder, got, want)
		}
	}
	m.carries(t)
}

// carries has the forward of the machine carry something.
func (m *machine) carries(t *testing.T) {
	t.Helper()
	defer m.serve()()
	await.Until(t, "the forward carries", m.echo)
}

// echo asks once over the forward.
func (m *machine) echo() error {
	c, err := net.Dial("tcp", m.entry)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		return fmt.Errorf("%q came back: %w", b, err)
	}
	return nil
}

// counted is a listener that counts whom it has accepted.
type counted struct {
	net.Listener
	accepted atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// TestOnlyNamedUsersMayConnect: where the owner of a machine has named users, nobody else's connections are forwarded (T39).
func TestOnlyNamedUsersMayConnect(t *testing.T) {
	m := newMachine(t, nobody)
	m.carries(t)
	ann := residents[3]
	m.running[ann.folder].stop()
	if err := daemon.EditConfig(m.config(ann.folder), daemon.Set("listen.users", []any{"nobody", 12345})); err != nil {
		t.Fatal(err)
	}
	m.launchOf(ann)
	m.waitReady(ann)
	service := &counted{Listener: m.listen()}
	topo.Echo(t, service)
	for _, uid := range []uintptr{uintptr(nobody.Uid), 12345} {
		asUser(t, uid, func() { await.Until(t, fmt.Sprintf("user %d is served", uid), m.echo) })
	}
	came := service.accepted.Load()
	for _, uid := range []uintptr{0, 12346} {
		asUser(t, uid, func() {
			if err := m.echo(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("user %d: %v, want a reset", uid, err)
			}
		})
	}
	if service.accepted.Load() > came {
		t.Error("the target has seen connections of users that were not named")
	}
	m.running[ann.folder].waitLog("user 12346 is not one of those that may connect")
}
