package users

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// asNobody runs f on a thread of its own that has become user 65534 for good.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not run as root")
		}
		t.Skip("needs root, to connect as another user")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		// The raw call changes this thread alone; package syscall's changes all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Errorf("become nobody: %v", errno)
			return
		}
		f()
	}()
	<-done
}

// accepted connects to a listener and returns both ends.
func accepted(t *testing.T, l net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// listeners is one of each kind. Everybody may connect to the Unix socket.
func listeners(t *testing.T) (list []net.Listener) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": socket} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		list = append(list, l)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	return list
}

// T39: who may connect is told apart, over TCP of both families and Unix sockets.
func TestOnlyNamedUsersPass(t *testing.T) {
	me := uint32(os.Geteuid())
	for _, l := range listeners(t) {
		what := l.Addr().String()
		if err := NewList(me).Ready(l); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		_, ours := accepted(t, l)
		for _, c := range []struct {
			list List
			want string
		}{
			{List{}, ""}, {NewList(me), ""}, {NewList(nobody, me), ""},
			{NewList(), "is not one of those"}, {NewList(me + 1), "is not one of those"},
		} {
			err := c.list.Check(ours)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %v: %v, want %q", what, c.list, err, c.want)
			}
		}
	}
	for _, l := range listeners(t) {
		asNobody(t, func() {
			_, theirs := accepted(t, l)
			if err := NewList(me).Check(theirs); err == nil || !strings.Contains(err.Error(), "user 65534 is not one of those") {
				t.Errorf("%s: another user: %v", l.Addr(), err)
			}
			if err := NewList(nobody).Check(theirs); err != nil {
				t.Errorf("%s: another user that is named: %v", l.Addr(), err)
			}
		})
	}
}

// TestClientThatHasClosedIsNobody: some kernels make root of it.
func TestClientThatHasClosedIsNobody(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asNobody(t, func() {
		client, server := accepted(t, l)
		client.Close()
		if err := NewList(0).Check(server); err == nil {
			t.Error("it passed as root")
		}
	})
}

// TestClientOfBothFamilies: a program that opens IPv6 sockets alone connects to an IPv4
// listener too.
func TestClientOfBothFamilies(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr("127.0.0.1").As16()}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := NewList(uint32(os.Geteuid())).Check(server); err != nil {
		t.Error(err)
	}
}

// TestClientElsewhereIsNobody, though the kernel finds a listener where it would be: one of
// a named user, at the port that a client on another machine has chosen.
func TestClientElsewhereIsNobody(t *testing.T) {
	trap, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	here := netip.MustParseAddrPort("127.0.0.1:8080")
	port := trap.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, a := range []string{"127.0.0.1", "192.0.2.7"} {
		remote := netip.AddrPortFrom(netip.MustParseAddr(a), port)
		if uid, err := lookUp(remote, here); err == nil || !strings.Contains(err.Error(), "not from this machine") {
			t.Errorf("%v is user %d, %v", remote, uid, err)
		}
	}
	if uid, err := lookUp(netip.MustParseAddrPort("192.0.2.7:9"), here); err == nil || !strings.Contains(err.Error(), "not from this machine") {
		t.Errorf("a port that nobody has is of user %d, %v", uid, err)
	}
}

// What a new connection costs more: nothing without a list.
func BenchmarkCheck(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	for name, list := range map[string]List{"off": {}, "on": NewList(uint32(os.Geteuid()))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := list.Check(server); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
