package udp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/lease"
)

// hosts are two machines of portals and the relay between them, each in a
// network namespace of its own:
//
//	host 0            relay                 host 1
//	eth0 .2  ---  .1 link0   link1 .1  ---  .2 eth0
//	10.0.0.0/24, fd00:0::/64      10.0.1.0/24, fd00:1::/64
//
// The test's goroutine is in the relay's.
type hosts struct {
	t  *testing.T
	in [2]func(func()) // runs something on a host
}

func newHosts(t *testing.T) *hosts {
	t.Helper()
	h := &hosts{t: t}
	runtime.LockOSThread() // never unlocked: the thread leaves with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, fmt.Sprintf("root: network namespaces (%v)", err))
	}
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, "program ip in PATH")
	}
	h.sysctl("net/ipv4/ip_forward", "1")
	h.sysctl("net/ipv6/conf/all/forwarding", "1")
	h.ip("link set lo up")
	for i := range h.in {
		var thread int
		h.in[i], thread = h.machine()
		h.ip("link add link%d type veth peer name eth0 netns %d", i, thread)
		h.ip("addr add 10.0.%d.1/24 dev link%d", i, i)
		h.ip("addr add fd00:%d::1/64 dev link%d nodad", i, i)
		h.ip("link set link%d up", i)
		h.in[i](func() {
			h.ip("addr add 10.0.%d.2/24 dev eth0", i)
			h.ip("addr add fd00:%d::2/64 dev eth0 nodad", i)
			h.ip("link set eth0 up")
		})
	}
	return h
}

// missing ends the test for want of something: skipped, or failed where CI=true.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// machine makes a namespace on a thread of its own, which runs what it is given.
func (h *hosts) machine() (do func(func()), thread int) {
	jobs, done, ready := make(chan func()), make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		thread = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for job := range jobs {
			job()
			done <- struct{}{}
		}
	}()
	if err := <-ready; err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { close(jobs) })
	return func(f func()) {
		jobs <- f
		<-done
	}, thread
}

// ip runs the program of that name in the namespace of the calling thread.
func (h *hosts) ip(format string, args ...any) {
	command := fmt.Sprintf(format, args...)
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		h.t.Errorf("ip %s: %v: %s", command, err, out)
	}
}

func (h *hosts) sysctl(name, value string) {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		h.t.Error(err)
	}
}

// relayAddr is the relay's address for a host, and hostAddr the host's.
func relayAddr(host int, v6 bool) netip.Addr { return linkAddr(host, v6, 1) }
func hostAddr(host int, v6 bool) netip.Addr  { return linkAddr(host, v6, 2) }

func linkAddr(host int, v6 bool, last int) netip.Addr {
	if v6 {
		return netip.MustParseAddr("fd00:" + strconv.Itoa(host) + "::" + strconv.Itoa(last))
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(host), byte(last)})
}

// socket opens a socket on a host.
func (h *hosts) socket(g *rig, host int, v6 bool) (c *net.UDPConn) {
	h.t.Helper()
	var err error
	h.in[host](func() {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddr(host, v6), 0)))
	})
	return g.keep(c, err)
}

// portal binds a leg of connection 0 from a host.
func (h *hosts) portal(m *meeting, host int, v6 bool) *portal {
	h.t.Helper()
	return m.portalAt(h.socket(m.g, host, v6), uint8(host), 0, netip.AddrPortFrom(relayAddr(host, v6), m.Port))
}

// rig is a relay between the hosts with a kernel plane, which ends with the test.
func (h *hosts) rig() (*rig, *bpf.Kernel) {
	h.t.Helper()
	k, err := bpf.Open(bpf.Options{
		Mode: bpf.ModeTC, Interfaces: []string{"link0", "link1"},
		First: 20000, Last: 32767, PacketFirst: 28672, PacketLast: 32767,
		Capacity: 16, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return tunedRig(h.t, func(c *Config) { c.Kernel = k }), k
}

func TestKernelDoesWithEveryPacketWhatAllPlanesDo(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			h := newHosts(t)
			g, k := h.rig()
			m := g.session()
			a, b := h.portal(m, 0, v6), h.portal(m, 1, v6)
			near := [2]*net.UDPConn{h.socket(g, 0, v6), h.socket(g, 1, v6)}
			forwarded := wantTable(g, a, b, near)
			g.awaitTraffic(m, forwarded)
			if got := g.Settled(m.ID); got != (lease.Traffic{}) {
				t.Errorf("user space has carried %v of %v", got, forwarded)
			}
			if n, refused := g.Shortcuts(); n != 1 || len(refused) != 0 {
				t.Errorf("%d pairs short cut, refused %v", n, refused)
			}
			if got := m.end(); got != forwarded {
				t.Errorf("traffic %v at the end, want %v", got, forwarded)
			}
			for pair := range k.Pairs() {
				t.Errorf("the kernel still has %v", pair)
			}
		})
	}
}

// TestKernelForwardsWhileNoRelayRuns moves a leg of a pair that is in the kernel,
// and stops and restarts the relay under it.
func TestKernelForwardsWhileNoRelayRuns(t *testing.T) {
	h := newHosts(t)
	g, _ := h.rig()
	m := g.session()
	a, b := h.portal(m, 0, false), h.portal(m, 1, false)
	a.send([]byte("to b"))
	b.want([]byte("to b"))
	moved := &portal{h.socket(g, 0, false), g, a.binder, a.relay}
	moved.binder.Start()
	moved.bind()
	b.send([]byte("to the new place"))
	moved.want([]byte("to the new place"))
	moved.send([]byte("from there"))
	b.want([]byte("from there"))
	before := lease.Traffic{14, 16}
	g.awaitTraffic(m, before)

	bound, settled := g.bound(m), g.Settled(m.ID)
	g.stop()
	for range 100 {
		moved.send([]byte("meanwhile"))
		b.want([]byte("meanwhile"))
		b.send([]byte("and back"))
		moved.want([]byte("and back"))
	}
	g = g.restart()
	if err := g.Restore(m.Session, bound); err != nil {
		t.Fatal(err)
	}
	m.g = g
	want := lease.Traffic{before[0] + 900 - settled[0], before[1] + 800 - settled[1]}
	if got := g.Traffic(m.ID); got != want {
		t.Errorf("traffic %v after the restart, want what the kernel counts, %v", got, want)
	}
	moved, b = moved.follow(g), b.follow(g)
	again := &portal{h.socket(g, 1, false), g, b.binder, b.relay}
	again.binder.Start()
	again.bind()
	moved.send([]byte("to b's new place"))
	again.want([]byte("to b's new place"))
	again.send([]byte("and back"))
	moved.want([]byte("and back"))
	want = want.Plus(lease.Traffic{16, 8})
	g.awaitTraffic(m, want)
	if got := m.end(); got != want {
		t.Errorf("traffic %v at the end, want %v", got, want)
	}
}

func TestLegsOfDifferentIPVersionsStayInUserSpace(t *testing.T) {
	h := newHosts(t)
	g, _ := h.rig()
	m := g.session()
	a, b := h.portal(m, 0, false), h.portal(m, 1, true)
	a.send([]byte("from IPv4"))
	b.want([]byte("from IPv4"))
	b.send([]byte("from IPv6"))
	a.want([]byte("from IPv6"))
	g.await("user space has carried it", func() bool { return g.Settled(m.ID) == (lease.Traffic{9, 9}) })
	if n, refused := g.Shortcuts(); n != 0 || refused[bpf.ErrVersions.Error()] != 1 {
		t.Errorf("%d pairs short cut, refused %v", n, refused)
	}
}
