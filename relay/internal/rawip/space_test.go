package rawip

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// space is a network namespace of a test. It lives as long as its descriptor and
// its sockets, and has no name.
type space struct {
	t  testing.TB
	fd int
}

// newSpace makes one, or ends a test that may not: skipped by name on a
// developer's machine, failed where CI=true.
func newSpace(t testing.TB) *space {
	t.Helper()
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, "program "+program+" in PATH")
		}
	}
	made := make(chan int)
	var err error
	go func() {
		runtime.LockOSThread() // never unlocked: the thread leaves with the namespace
		fd := -1
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- fd
	}()
	s := &space{t: t, fd: <-made}
	if err != nil {
		missing(t, "root: network namespaces ("+err.Error()+")")
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	s.run("ip link set lo up")
	return s
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// do runs f inside. Sockets that f opens stay there.
func (s *space) do(f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		err := unix.Setns(s.fd, unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

// run runs commands inside, one a line.
func (s *space) run(commands ...string) {
	s.t.Helper()
	for _, command := range commands {
		words := strings.Fields(command)
		var out []byte
		var err error
		s.do(func() { out, err = exec.Command(words[0], words[1:]...).CombinedOutput() })
		if err != nil {
			s.t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
}

// connect makes a link called name between two spaces, with the subnet number n:
// this space has the addresses that end in 1, the other in 2.
func (s *space) connect(name string, n int, other *space) {
	s.t.Helper()
	s.run(fmt.Sprintf("ip link add %s type veth peer name eth0 netns /proc/%d/fd/%d", name, os.Getpid(), other.fd))
	for _, end := range []struct {
		s    *space
		link string
		last int
	}{{s, name, 1}, {other, "eth0", 2}} {
		end.s.run(
			fmt.Sprintf("ip link set %s addrgenmode none", end.link), // no link-local address to wait for
			fmt.Sprintf("ip addr add 10.99.%d.%d/24 dev %s", n, end.last, end.link),
			fmt.Sprintf("ip addr add fd99:%d::%d/64 dev %s nodad", n, end.last, end.link),
			fmt.Sprintf("ip link set %s up", end.link),
		)
	}
}

// capture is a packet socket that hears all IP packets that come to a space from
// outside, before its firewall.
type capture struct {
	t  testing.TB
	fd int
	b  []byte
}

func (s *space) capture() *capture {
	s.t.Helper()
	c := &capture{t: s.t, b: make([]byte, 1<<16)}
	var err error
	s.do(func() {
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(network(unix.ETH_P_ALL)))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	s.t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

func network(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// next returns the next packet, good until the one after; nil if none comes for
// a while.
func (c *capture) next(milliseconds int) []byte {
	for {
		wait := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(wait, milliseconds); err == unix.EINTR {
			continue
		} else if n == 0 {
			return nil
		}
		n, from, err := unix.Recvfrom(c.fd, c.b, 0)
		if err != nil {
			return nil
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_HOST {
			return c.b[:n]
		}
	}
}
