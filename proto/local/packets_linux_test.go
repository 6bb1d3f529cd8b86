package local

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUsersOfASocket: those that it was opened for can call it, and nobody else; it says whom it has turned away.
func TestUsersOfASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "np")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	call := func(path string) error {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err == nil {
			c.Close()
		}
		return err
	}
	for _, c := range []struct {
		what    string
		users   []int
		mode    os.FileMode
		nobody  bool   // is served
		refused string // nobody is told
		root    bool   // the test must be able to become another user
	}{
		{"of its own user", nil, 0o600, false, "", false},
		{"of another user", []int{nobodyID + 1}, 0o666, false, "it is user 65534", true},
		{"of that user", []int{nobodyID + 1, nobodyID}, 0o666, true, "", true},
	} {
		path := filepath.Join(dir, "packets.sock")
		s, err := ListenPackets(path, c.users...)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != c.mode {
			t.Errorf("%s: mode %v, %v; want %v", c.what, info.Mode(), err, c.mode)
		}
		var told []string
		s.Refused = func(err error) { told = append(told, err.Error()) }
		callers := 1
		if c.root && os.Geteuid() == 0 {
			asNobody(t, func() {
				if err := call(path); err != nil {
					t.Errorf("%s: %v", c.what, err)
				}
			})
			if c.nobody {
				callers++
			}
		}
		if err := call(path); err != nil {
			t.Errorf("%s: its own user: %v", c.what, err)
		}
		for range callers {
			s.SetDeadline(time.Now().Add(10 * time.Second))
			conn, err := s.Accept()
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			conn.Close()
		}
		if os.Geteuid() == 0 && strings.Join(told, "\n") != c.refused {
			t.Errorf("%s: it says %q, want %q", c.what, told, c.refused)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: the socket is still there: %v", c.what, err)
		}
	}
}
