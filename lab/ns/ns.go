// Package ns owns network namespaces: it makes one, runs code and programs inside, and ends it with everything in it.
//
// A namespace has no name and no file: it is held by an open descriptor and by the threads and processes inside. So
// two runs cannot collide, and when the process that made it ends, however it ends, the kernel kills the programs that
// were started in it and removes it with its links, rules and routes. A daemon that detached itself lives on, until the
// next run calls KillStale.
package ns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The main goroutine stays on the main thread, so that no other goroutine is ever run there: a thread that ends
// inside a namespace must not be the main one, which cannot end.
func init() { runtime.LockOSThread() }

// Namespace is a network namespace with a mount namespace of its own, in which /run is empty. Its methods may be
// called from any goroutine until Close.
type Namespace struct {
	handle netns.NsHandle
	inode  uint64
	calls  chan func() // run one after another by the thread that lives in the namespace
	ended  chan struct{}
}

// New makes a namespace. Its loopback device is up; it has no other device. Needs root.
func New() (*Namespace, error) {
	n := &Namespace{calls: make(chan func()), ended: make(chan struct{})}
	made := make(chan error)
	go n.live(made)
	if err := <-made; err != nil {
		<-n.ended
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := n.loopbackUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("make a network namespace: loopback up: %w", err), n.Close())
	}
	return n, nil
}

// live is the namespace's own thread. Programs are started from it, so they inherit its namespaces and, by their
// parent-death signal, are killed when it ends. It is never unlocked and so ends with this goroutine.
func (n *Namespace) live(made chan<- error) {
	defer close(n.ended)
	runtime.LockOSThread()
	if err := n.enterNew(); err != nil {
		made <- err
		return
	}
	made <- nil
	for call := range n.calls {
		call()
	}
}

func (n *Namespace) enterNew() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount(runMount+strconv.Itoa(os.Getpid()), "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount an empty /run: %w", err)
	}
	handle, err := netns.New()
	if err != nil {
		return fmt.Errorf("unshare network: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(handle), &stat); err != nil {
		return errors.Join(fmt.Errorf("stat namespace: %w", err), handle.Close())
	}
	n.handle, n.inode = handle, stat.Ino
	return nil
}

func (n *Namespace) loopbackUp() error {
	h, err := n.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// Netlink returns a handle on the namespace's links, addresses and routes. The caller closes it.
func (n *Namespace) Netlink() (*netlink.Handle, error) {
	return netlink.NewHandleAt(n.handle)
}

// FD is the descriptor of the network namespace, valid until Close.
func (n *Namespace) FD() int { return int(n.handle) }

// Inode is the number that /proc/PID/ns/net shows for the namespace's processes.
func (n *Namespace) Inode() uint64 { return n.inode }

// Do runs f on the calling goroutine, inside the network namespace (the mounts stay the caller's). Sockets that f
// opens stay in the namespace for life; goroutines that f starts do not run in it.
func (n *Namespace) Do(f func()) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer before.Close()
	if err := netns.Set(n.handle); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer func() {
		if err := netns.Set(before); err != nil {
			panic(fmt.Sprintf("ns: thread is stuck in a network namespace: %v", err))
		}
		runtime.UnlockOSThread()
	}()
	f()
	return nil
}

// Start starts cmd inside the network and the mount namespace. The program is killed when the namespace ends.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var err error
	n.call(func() { err = cmd.Start() })
	return err
}

// Bind shows the file or directory source at target to the programs of the namespace. Target must exist.
func (n *Namespace) Bind(source, target string) error {
	var err error
	n.call(func() { err = unix.Mount(source, target, "", unix.MS_BIND, "") })
	if err != nil {
		return fmt.Errorf("bind %s at %s: %w", source, target, err)
	}
	return nil
}

// Sysctl sets a value under net, for instance Sysctl("ipv4/ip_forward", "1").
func (n *Namespace) Sysctl(key, value string) error {
	var err error
	if doErr := n.Do(func() { err = os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) }); doErr != nil {
		return doErr
	}
	return err
}

// Inside runs f on the namespace's own thread, inside the network and the mount namespace. Calls run one after another.
// Goroutines that f starts do not run there.
func (n *Namespace) Inside(f func()) { n.call(f) }

func (n *Namespace) call(f func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// Close kills every process that is left in the namespace and lets go of it. The kernel removes it once the last
// socket that was opened in it is closed.
func (n *Namespace) Close() error {
	err := n.killAll()
	close(n.calls)
	<-n.ended
	return errors.Join(err, n.handle.Close())
}
