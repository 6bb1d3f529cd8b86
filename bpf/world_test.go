//go:build linux

package bpf

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// world is a relay between two portals' hosts, each in a network namespace of
// its own:
//
//	host 0                      relay                      host 1
//	eth0 10.0.0.2  ---  10.0.0.1 a   b 10.0.1.1  ---  10.0.1.2 eth0
//	     fd00:0::2      fd00:0::1       fd00:1::1     fd00:1::2
//
// The test's goroutine stays on its thread, which is in the relay's namespace.
type world struct {
	testing.TB
	relay netns.NsHandle
	hosts [2]netns.NsHandle
}

// The relay's interfaces.
var sides = [2]string{"a", "b"}

// relayAddr and hostAddr are the addresses of the link to a host.
func relayAddr(host int, v6 bool) netip.Addr { return linkAddr(host, v6, 1) }
func hostAddr(host int, v6 bool) netip.Addr  { return linkAddr(host, v6, 2) }

func linkAddr(host int, v6 bool, last byte) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: byte(host), 15: last})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(host), last})
}

// newWorld makes a world that ends with the test. It needs root.
func newWorld(t testing.TB) *world {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t}
	t.Cleanup(func() {
		for _, ns := range append(w.hosts[:], w.relay) {
			ns.Close()
		}
		if netns.Set(before) == nil {
			runtime.UnlockOSThread() // else the thread dies with its goroutine
		}
		before.Close()
	})
	w.relay = w.namespace()
	for i := range w.hosts {
		w.hosts[i] = w.namespace()
	}
	w.enter(w.relay)
	w.sysctl("net/ipv4/ip_forward", "1")
	w.sysctl("net/ipv6/conf/all/forwarding", "1")
	for i := range w.hosts {
		w.cable(i)
	}
	return w
}

func (w *world) namespace() netns.NsHandle {
	w.Helper()
	ns, err := netns.New()
	if err != nil {
		w.Fatal(err)
	}
	w.sysctl("net/ipv6/conf/default/accept_dad", "0")
	w.sysctl("net/ipv6/conf/all/accept_dad", "0")
	w.up("lo")
	return ns
}

func (w *world) enter(ns netns.NsHandle) {
	w.Helper()
	if err := netns.Set(ns); err != nil {
		w.Fatal(err)
	}
}

// in runs f in a host's namespace.
func (w *world) in(host int, f func()) {
	w.Helper()
	w.enter(w.hosts[host])
	defer w.enter(w.relay)
	f()
}

// sysctl sets a value of the thread's namespace.
func (w *world) sysctl(name, value string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		w.Fatal(err)
	}
}

func (w *world) up(name string) {
	w.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		w.Fatalf("%s up: %v", name, err)
	}
}

// cable connects a host to the relay. Checksums are computed by the sender, as
// on a wire, and the host's end has an XDP program, which on a veth is what lets
// native XDP send there.
func (w *world) cable(host int) {
	w.Helper()
	side := sides[host]
	a := netlink.NewLinkAttrs()
	a.Name = side
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.hosts[host])}); err != nil {
		w.Fatal(err)
	}
	w.address(side, relayAddr(host, false), relayAddr(host, true))
	w.up(side)
	w.in(host, func() {
		w.address("eth0", hostAddr(host, false), hostAddr(host, true))
		w.up("eth0")
		w.wholeSums("eth0")
		w.passXDP("eth0")
		for _, gateway := range []netip.Addr{relayAddr(host, false), relayAddr(host, true)} {
			if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
				w.Fatal(err)
			}
		}
	})
}

func (w *world) address(name string, list ...netip.Addr) {
	w.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		w.Fatal(err)
	}
	for _, a := range list {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
		if err := netlink.AddrAdd(l, address); err != nil {
			w.Fatal(err)
		}
	}
}

// options are those of a Kernel for both of the relay's interfaces.
func (w *world) options(mode, pinDir string) Options {
	return relayOptions(mode, pinDir, slog.NewTextHandler(testLog{w}, nil))
}

func relayOptions(mode, pinDir string, log slog.Handler) Options {
	return Options{
		Mode: mode, PinDir: pinDir, Interfaces: sides[:],
		First: 20000, Last: 32767, PacketFirst: 28672, PacketLast: 32767,
		Capacity: 64,
		Log:      slog.New(log),
	}
}

// open opens a Kernel that ends with the test.
func (w *world) open(o Options) *Kernel {
	w.Helper()
	k, err := Open(o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := k.Close(); err != nil {
			w.Error(err)
		}
	})
	return k
}

// testLog writes a log to that of a test.
type testLog struct{ testing.TB }

func (l testLog) Write(line []byte) (int, error) {
	l.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

// pinDir returns a directory for pins on a bpffs of its own.
func pinDir(t testing.TB) string {
	t.Helper()
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("bpf", root, "bpf", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(root, "relay")
}

// pinned lists what is pinned.
func pinned(t testing.TB, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// needRoot skips a test where the rights for it are missing, and fails it where
// CI=true.
func needRoot(t testing.TB) {
	t.Helper()
	tried := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread leaves with its namespaces
		tried <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	err := <-tried
	if err == nil {
		return
	}
	why := fmt.Sprintf("needs root: network namespaces (%v)", err)
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// wholeSums makes the senders at an interface compute their checksums.
func (w *world) wholeSums(name string) {
	w.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.Fatal(err)
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data *struct{ cmd, data uint32 }
		_    [16]byte
	}{data: &value}
	copy(request.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		w.Fatalf("checksum offload off at %s: %v", name, errno)
	}
}

// passXDP attaches an XDP program to an interface that passes everything.
func (w *world) passXDP(name string) {
	w.Helper()
	const pass = 2
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		w.Fatal(err)
	}
	defer program.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		w.Fatal(err)
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { attached.Close() })
}
