//go:build linux

package handover

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/local"
)

// desk is a taker's socket, and a port whose connections are given to it.
type desk struct {
	t      *testing.T
	path   string
	socket *local.Socket
	port   *net.TCPListener
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "np") // a socket's path must be short; t.TempDir's need not be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, path: filepath.Join(dir, "taken.sock")}
	if d.socket, err = local.ListenPackets(d.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.socket.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d.port = l.(*net.TCPListener)
	return d
}

// pair is a client's connection and the other end of it, as it was accepted.
func (d *desk) pair() (client, accepted *net.TCPConn) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.port.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	a, err := d.port.AcceptTCP()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { a.Close() })
	return c.(*net.TCPConn), a
}

// take takes what the next caller hands over.
func (d *desk) take() (*net.TCPConn, []byte, error) {
	d.t.Helper()
	caller, err := d.socket.Accept()
	if err != nil {
		d.t.Fatal(err)
	}
	return Take(caller)
}

// call is a connection to the taker's socket.
func (d *desk) call() *net.UnixConn {
	d.t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.path, Net: "unixpacket"})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// open returns how many descriptors this process has.
func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestTakerGoesOnAsIfItHadAccepted: it has the client's address and all bytes, and the connection lives when the giver has
// let it go; when the taker ends it, it ends.
func TestTakerGoesOnAsIfItHadAccepted(t *testing.T) {
	d := newDesk(t)
	for _, head := range [][]byte{{0x16}, bytes.Repeat([]byte("hello"), 500), make([]byte, MaxHead)} {
		before := open(t)
		client, accepted := d.pair()
		if err := Give(d.path, accepted, head); err != nil {
			t.Fatal(err)
		}
		accepted.Close()
		c, got, err := d.take()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, head) {
			t.Errorf("%d bytes came with it, want %d", len(got), len(head))
		}
		if c.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("the client is at %v, want %v", c.RemoteAddr(), client.LocalAddr())
		}
		io.WriteString(client, "forth")
		client.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "forth" {
			t.Errorf("the taker reads %q, %v", b, err)
		}
		io.WriteString(c, "back")
		c.Close()
		if b, err := io.ReadAll(client); err != nil || string(b) != "back" {
			t.Errorf("the client reads %q, %v: is there another descriptor?", b, err)
		}
		client.Close()
		if now := open(t); now != before {
			t.Errorf("%d descriptors are open, before it were %d", now, before)
		}
	}
}

// TestGiverKnowsWhenNobodyTakes: at once, with a reason, and keeping nothing.
func TestGiverKnowsWhenNobodyTakes(t *testing.T) {
	d := newDesk(t)
	_, accepted := d.pair()
	before := open(t)
	full := filepath.Join(filepath.Dir(d.path), "full.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: full}), unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Give(full, accepted, []byte{0x16}); err != nil {
		t.Fatalf("the first of a queue: %v", err)
	}
	stream, err := net.Listen("unix", filepath.Join(filepath.Dir(d.path), "stream.sock"))
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(filepath.Dir(d.path), "gone.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: gone, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, c := range []struct {
		what, path string
		head       int
		want       error
		text       string
	}{
		{"a queue that is full", full, 1, syscall.EAGAIN, "hand over to " + full + ": connect: resource temporarily unavailable"},
		{"a taker that has gone", gone, 1, syscall.ECONNREFUSED, "connection refused"},
		{"a path without a socket", d.path + ".none", 1, syscall.ENOENT, "no such file"},
		{"another kind of socket", stream.Addr().String(), 1, syscall.EPROTOTYPE, "wrong type"},
		{"a path that is too long", "/" + strings.Repeat("x", 200), 1, syscall.EINVAL, "invalid argument"},
		{"nothing read", d.path, 0, nil, "0 bytes were read"},
		{"too much read", d.path, MaxHead + 1, nil, "16385 bytes were read: 1 to 16384 are possible"},
	} {
		begin := time.Now()
		err := Give(c.path, accepted, make([]byte, c.head))
		if err == nil || !errors.Is(err, c.want) && c.want != nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v and %q", c.what, err, c.want, c.text)
		}
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("%s: it took %v", c.what, took)
		}
	}
	unix.Close(fd)
	stream.Close()
	accepted.Close()
	if err := Give(d.path, accepted, []byte{0x16}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection that was closed meanwhile: %v", err)
	}
	if now := open(t); now != before-1 {
		t.Errorf("%d descriptors are open, before it were %d", now, before-1)
	}
}

// send sends a packet as it is: package net would put a byte into an empty one.
func send(to *net.UnixConn, head, control []byte) error {
	message := unix.Msghdr{}
	if len(head) > 0 {
		part := unix.Iovec{Base: &head[0]}
		part.SetLen(len(head))
		message.Iov, message.Iovlen = &part, 1
	}
	if len(control) > 0 {
		message.Control = &control[0]
		message.SetControllen(len(control))
	}
	raw, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&message)), 0)
	})
	if errno != 0 {
		return errno
	}
	return err
}

// TestTakerKeepsNothingOfWhatIsWrong: whoever hands over something else, or nothing, is refused, and no descriptor stays.
func TestTakerKeepsNothingOfWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	client, accepted := d.pair()
	rights := func(files ...interface{ File() (*os.File, error) }) []byte {
		var fds []int
		for _, f := range files {
			file, err := f.File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { file.Close() })
			fds = append(fds, int(file.Fd()))
		}
		return unix.UnixRights(fds...)
	}
	unconnected, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unconnected)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		what    string
		head    []byte
		control []byte
		text    string
	}{
		{"nothing", nil, nil, "the caller has sent nothing"},
		{"a descriptor without a byte", nil, rights(accepted), "the caller has sent nothing"},
		{"bytes without a descriptor", []byte{0x16}, nil, "1 bytes with 0 descriptors"},
		{"two descriptors", []byte{0x16}, rights(accepted, client), "expected 1 to 16384 bytes with one"},
		{"many descriptors", []byte{0x16}, rights(accepted, client, accepted, client, accepted, client), "expected 1 to 16384 bytes with one"},
		{"too many bytes", make([]byte, MaxHead+1), rights(accepted), "16384 bytes with 1 descriptors came (flags 0x"},
		{"a file", []byte{0x16}, unix.UnixRights(int(null.Fd())), "socket operation on non-socket"},
		{"a port", []byte{0x16}, rights(d.port), "no TCP connection"},
		{"a Unix socket", []byte{0x16}, rights(d.socket), "no TCP connection"},
		{"a socket without a peer", []byte{0x16}, unix.UnixRights(unconnected), "no TCP connection"},
	} {
		before := open(t)
		caller := d.call()
		if c.head != nil || c.control != nil {
			if err := send(caller, c.head, c.control); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
		}
		caller.Close()
		got, head, err := d.take()
		if err == nil || got != nil || head != nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %d bytes, %v; want an error with %q", c.what, got, len(head), err, c.text)
		}
		if now := open(t); now != before {
			t.Errorf("%s: %d descriptors are open, before it were %d", c.what, now, before)
		}
	}
	silent := d.call()
	defer silent.Close()
	if _, _, err := d.take(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a caller that sends nothing: %v", err)
	}
	a, b := net.Pipe()
	defer b.Close()
	if _, _, err := Take(a); err == nil || !strings.Contains(err.Error(), "no Unix socket") {
		t.Errorf("another connection: %v", err)
	}
}

func TestUsersAreNamedOrNumbered(t *testing.T) {
	for name, want := range map[string]int{"root": 0, "0": 0, "12345": 12345, "2147483647": 1<<31 - 1} {
		if got, err := User(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "-1", "nobody-here", "2147483648", "0x10"} {
		if got, err := User(name); err == nil || !strings.Contains(err.Error(), "no user \""+name+"\" on this machine") {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
}
