package joining

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// nobody is the user that has no right on any machine.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// machine is a world with a daemon of each role on this machine: the server, relay-1, and the portals ann and plant, with a
// forward from entry over ann and plant to target.
type machine struct {
	*world
	entry, target string
	running       map[string]*program // by folder
}

// resident is a daemon of a machine.
type resident struct{ role, folder, socket string }

var (
	plant     = resident{"portal", "plant", "state/portal.sock"}
	residents = []resident{{"server", "server", "server.sock"}, {"relay", "relay-1", "relay.sock"}, plant, {"portal", "ann", "state/portal.sock"}}
)

// newMachine makes a machine whose programs are a user's (nil: the test's own) and have more in their environment.
func newMachine(t *testing.T, user *syscall.Credential, environment ...string) *machine {
	t.Helper()
	w := newWorldOf(t, user, environment)
	m := &machine{world: w, entry: w.free(), target: w.free(), running: make(map[string]*program)}
	m.running["server"] = m.server
	m.ask("issue", "relay", "relay-1", "--address", m.ip, "--out", m.folder("relay-1"))
	shared := netip.MustParseAddrPort(m.free()).Port()
	if err := daemon.EditConfig(m.config("relay-1"), daemon.Set("allow_loopback", true), daemon.Set("addresses", []string{m.ip}),
		daemon.Set("mode", "userspace"), daemon.Set("shared_tcp_port", shared), daemon.Set("shared_udp_port", 0)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ann", "plant"} {
		m.ask("issue", "portal", name, "--out", m.folder(name))
	}
	policy := filepath.Join(m.folder("server"), "policy.toml")
	text := fmt.Sprintf("domain = %q\n[[forward]]\nname = \"in\"\nfrom = \"ann tcp://%s\"\nto = \"plant tcp://%s\"\n", domain, m.entry, m.target)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.chown(policy)
	m.ask("policy", "apply", policy)
	for _, r := range residents[1:] {
		m.launchOf(r)
	}
	for _, r := range residents[1:] {
		m.waitReady(r)
	}
	return m
}

func (m *machine) launchOf(r resident) {
	m.t.Helper()
	m.running[r.folder] = m.start(r.role, r.folder)
}

// waitReady waits until a daemon answers its command line.
func (m *machine) waitReady(r resident) {
	m.t.Helper()
	await.Until(m.t, r.folder+" ready", func() error { return m.try(r.role, nil, "status", "--config", m.config(r.folder)) })
}

// listen opens the machine's target.
func (m *machine) listen() net.Listener {
	m.t.Helper()
	l, err := net.Listen("tcp", m.target)
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

// serve is the service at the machine's target, until stop is called: it gives back what comes.
func (m *machine) serve() (stop func()) {
	m.t.Helper()
	return topo.Echo(m.t, m.listen())
}

func (m *machine) socket(r resident) string { return filepath.Join(m.folder(r.folder), r.socket) }
func (m *machine) pid(r resident) int       { return m.running[r.folder].cmd.Process.Pid }

// refused starts a daemon that has to end at once with exit code 1; the last line that it says has a text.
func (m *machine) refused(what string, r resident, text string) {
	m.t.Helper()
	p := m.start(r.role, r.folder)
	select {
	case <-p.done:
	case <-time.After(await.Patience):
		m.t.Errorf("%s: %s runs", what, r.folder)
		p.stop()
		return
	}
	lines := strings.Split(strings.TrimSpace(p.text()), "\n")
	last := lines[len(lines)-1]
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(last, "netport-"+r.role+": ") || !strings.Contains(last, text) {
		m.t.Errorf("%s: %s: exit code %d, it says %q, want 1 and %q", what, r.folder, code, last, text)
	}
}

// chown gives a file to the user of the world.
func (m *machine) chown(name string) {
	m.t.Helper()
	if m.user == nil {
		return
	}
	if err := os.Lchown(name, int(m.user.Uid), int(m.user.Gid)); err != nil {
		m.t.Fatal(err)
	}
}
