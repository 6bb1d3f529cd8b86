package packet

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSocketKeepsWhatQUICIsFastWith(t *testing.T) {
	p := newPair(t, "udp4")
	for i, c := range p.conns {
		if !c.ConnectionState().GSO {
			t.Errorf("end %d sends packets one by one", i)
		}
	}
	for _, s := range []*socket{p.ends[0].line.socket.Load(), replaced(t, p.ends[0].line.conn)} {
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range []struct {
				name         string
				option, want int
			}{
				{"IP_MTU_DISCOVER", unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
				{"IP_RECVTOS", unix.IP_RECVTOS, 1},
				{"IP_PKTINFO", unix.IP_PKTINFO, 0}, // see conn
			} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, o.option); err != nil || got != o.want {
					t.Errorf("%s is %d, %v, want %d", o.name, got, err, o.want)
				}
			}
		})
	}
}

// replaced has the socket of c replaced and returns the new one.
func replaced(t *testing.T, c *conn) *socket {
	t.Helper()
	if err := c.replace(c.socket.Load(), errors.New("test")); err != nil {
		t.Fatal(err)
	}
	return c.socket.Load()
}

// The network goes away under a transfer and comes back, as on a train.
func TestConnectionSurvivesThatNothingCanBeSent(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("link", "set", "lo", "up")
	p := newPair(t, "udp4")
	p.carry(t, 0, 4<<20, func() {
		ip("addr", "del", "127.0.0.1/8", "dev", "lo")
		defer ip("addr", "add", "127.0.0.1/8", "dev", "lo")
		for deadline := time.After(10 * time.Second); p.ends[0].line.lost.Load() == 0; {
			select {
			case <-deadline:
				t.Fatal("every packet could be sent")
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// inNamespace runs the calling test again in a network namespace of its own,
// in another process, and reports whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "NETPORT_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		why := "needs root: network namespaces (" + err.Error() + ")"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}
