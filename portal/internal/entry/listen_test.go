package entry

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/proto/endpoint"
)

// folder makes a folder with a name short enough for a socket's path.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "np")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSocketIsItsOwnersAloneAndRemovedAtTheEnd(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := listenUnix(path, false)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := listenUnix(path, false); err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("a second listener: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSocketOfADeadDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenUnix(path, false)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestWhatIsNotOurSocketIsLeftAlone(t *testing.T) {
	dir := folder(t)
	file, link, target := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if _, err := listenUnix(path, false); err == nil || !strings.Contains(err.Error(), "not a socket of ours") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file: %q, %v", b, err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the link points to: %v", err)
	}
	if _, err := listenUnix(filepath.Join(dir, "none", "s"), false); err == nil || !strings.Contains(err.Error(), "make the folder first") {
		t.Errorf("no folder: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(filepath.Join(dir, "s"), false); err == nil || !strings.Contains(err.Error(), "anybody may write") {
		t.Errorf("a folder of all: %v", err)
	}
}

func TestSocketOfAnotherIsNotRemoved(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := listenUnix(path, false)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket that took its place: %v", err)
	}
}

// A listener on all IPv4 addresses is granted no IPv6.
func TestListenerKeepsToItsFamily(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	l, err := listenTCP(context.Background(), endpoint.MustParse("tcp://0.0.0.0:"+port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if conn, err := net.Dial("tcp6", "[::1]:"+port); err == nil {
		conn.Close()
		t.Error("tcp://0.0.0.0 answers at ::1")
	}
	conn, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenErrorsSayWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for uri, want := range map[string]string{
		"tcp://" + taken.Addr().String(): "address already in use; another program listens there",
		"tcp://192.0.2.1:8080":           "this machine has no such address",
		"udp://192.0.2.1:8080":           "this machine has no such address",
	} {
		e := endpoint.MustParse(uri)
		if e.Datagram() {
			_, err = listenUDP(context.Background(), e)
		} else {
			_, err = listenTCP(context.Background(), e)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "listen at "+uri) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
}
