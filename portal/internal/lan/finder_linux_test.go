package lan

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/network/networktest"
	"github.com/netport/netport/proto/wire"
)

// hall gives the namespace of the test an interface with neighbours.
func hall(t *testing.T) {
	t.Helper()
	networktest.Run(t, "ip link set lo up")
	networktest.Run(t, "ip link add hall type veth peer name wall")
	networktest.Run(t, "ip addr add 192.168.7.2/24 dev hall")
	networktest.Run(t, "ip addr add fd00:7::2/64 dev hall nodad")
	networktest.Run(t, "ip link set wall up")
	networktest.Run(t, "ip link set hall up")
}

// neighbour is a portal's Finder that runs.
type neighbour struct {
	*Finder
	mu   sync.Mutex // guards the following
	list []wire.Candidate
}

// newNeighbour returns a Finder whose portal is reached at these ports.
func newNeighbour(t *testing.T, port4, port6 uint16) *neighbour {
	n := &neighbour{Finder: New(Config{Log: slog.New(slog.DiscardHandler), Port: func(a netip.Addr) uint16 {
		if a.Is4() {
			return port4
		}
		return port6
	}})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *neighbour) found(list []wire.Candidate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = list
}

// at returns what was found, in order.
func (n *neighbour) at() (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.list {
		list = append(list, c.Addr.String())
	}
	slices.Sort(list)
	return list
}

func eventually(t *testing.T, what string, well func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !well(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("20 s without %s", what)
		}
	}
}

// Two portals find each other by both IP versions; one with another key finds nobody, and
// is found by none.
func TestNeighboursFindEachOther(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	hall(t)
	ann, bo, eve := newNeighbour(t, 4001, 6001), newNeighbour(t, 4002, 6002), newNeighbour(t, 4003, 6003)
	key := [32]byte{1}
	defer eve.Look("bo", "ann", [32]byte{2}, eve.found)()
	defer ann.Look("ann", "bo", key, ann.found)()
	defer bo.Look("bo", "ann", key, bo.found)()
	eventually(t, "ann knows where bo is", func() bool {
		return slices.Equal(ann.at(), []string{"192.168.7.2:4002", "[fd00:7::2]:6002"})
	})
	eventually(t, "bo knows where ann is", func() bool {
		return slices.Equal(bo.at(), []string{"192.168.7.2:4001", "[fd00:7::2]:6001"})
	})
	if len(eve.at()) > 0 {
		t.Errorf("eve has found %v", eve.at())
	}
}

// Avahi, on the same machine, tells of a portal and is told of one; whoever asks it for all portals
// sees none that it was not told of by somebody on its machine.
func TestAvahiIsANeighbour(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	for _, program := range []string{"avahi-daemon", "avahi-publish", "avahi-resolve", "avahi-browse", "dbus-daemon", "dbus-send"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("needs %s", program)
			}
			t.Skipf("needs %s", program)
		}
	}
	hall(t)
	startAvahi(t)
	ann := newNeighbour(t, 4001, 6001)
	l := &look{own: "ann", peer: "bo", key: [32]byte{1}}
	defer ann.Look(l.own, l.peer, l.key, ann.found)()
	start(t, "avahi-publish", "-s", l.label("bo", time.Now()), "_netport._udp", "4002")
	eventually(t, "what avahi tells of is found", func() bool { return slices.Contains(ann.at(), "192.168.7.2:4002") })
	resolve := func(label string) string {
		out, err := exec.Command("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.Avahi", "/", "org.freedesktop.Avahi.Server.ResolveService",
			"int32:-1", "int32:0", "string:"+label, "string:_netport._udp", "string:local", "int32:0", "uint32:0").CombinedOutput()
		return fmt.Sprintln(string(out), err)
	}
	var said string
	eventually(t, "avahi finds ann", func() bool {
		said = resolve(l.label("ann", time.Now()))
		return strings.Contains(said, "uint16 4001") && strings.Contains(said, `"192.168.7.2"`)
	})
	if said = resolve((&look{}).label("ann", time.Now())); !strings.Contains(said, "Timeout") {
		t.Errorf("a name that nobody has: %s", said)
	}
	if out, err := exec.Command("avahi-browse", "-t", "-p", "_netport._udp").CombinedOutput(); err != nil || strings.Contains(string(out), l.label("ann", time.Now())) {
		t.Errorf("a stranger who asks for all portals sees %s, %v", out, err)
	}
}

// startAvahi runs a message bus and avahi in the namespace.
func startAvahi(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket, conf := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	avahi := filepath.Join(dir, "avahi.conf")
	for file, text := range map[string]string{
		conf: `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="error"/><allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/><allow receive_type="signal"/><allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/></policy></busconfig>`,
		avahi: "[server]\nhost-name=neighbour\nallow-interfaces=hall\nenable-dbus=yes\n[publish]\npublish-workstation=no\n[rlimits]\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	start(t, "dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile")
	eventually(t, "the message bus", func() bool { _, err := os.Stat(socket); return err == nil })
	start(t, "avahi-daemon", "--file="+avahi, "--no-drop-root", "--no-chroot", "--no-rlimits")
	eventually(t, "avahi", func() bool {
		out, err := exec.Command("avahi-resolve", "-4", "-n", "neighbour.local").CombinedOutput()
		return err == nil && strings.Contains(string(out), "192.168.7.2")
	})
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, said.String())
		}
	})
}

// T41: a neighbour hears what is asked for and answers it with a victim's address and
// thousands of its own, as fast as it can. Nothing but 16 of its own is believed, and
// little is worked for it.
func TestEvilNeighbourIsNoBurden(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	hall(t)
	ann := newNeighbour(t, 4001, 6001)
	l := &look{own: "ann", peer: "bo", key: [32]byte{1}}
	defer ann.Look(l.own, l.peer, l.key, ann.found)()
	near, err := interfaces()
	if err != nil {
		t.Fatal(err)
	}
	evil, err := open(near)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, s := range evil {
			s.conn.Close()
		}
	}()
	on := near[slices.IndexFunc(near, func(n nearby) bool { return n.Name == "hall" })].Index
	var packets [][]byte
	for i := range 500 {
		places := []place{{4002, []netip.Addr{netip.MustParseAddr("192.0.2.66")}}}
		for j := range 10 {
			n := 10*i + j
			places[0].addrs = append(places[0].addrs, netip.AddrFrom4([4]byte{192, 168, 7, byte(n)}))
		}
		b, err := answer(l.label("bo", time.Now()), places)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b)
	}
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began, sent := time.Now(), 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 3*time.Second {
		<-tick.C
		for range 10 {
			if err := evil[0].write(packets[sent%len(packets)], on); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	took := time.Duration(after.Utime.Nano() - before.Utime.Nano())
	at := ann.at()
	if len(at) == 0 || len(at) > maxPerPeer {
		t.Errorf("%d addresses of one peer", len(at))
	}
	for _, a := range at {
		if !strings.HasPrefix(a, "192.168.7.") {
			t.Errorf("%s was believed", a)
		}
	}
	if spent := time.Since(began); took > spent/5 {
		t.Errorf("%v of a processor in %v, for %d answers, and to make them", took, spent, sent)
	}
	t.Logf("%d answers in %v: %v of a processor in user mode, together with who sent them", sent, time.Since(began), took)
}
