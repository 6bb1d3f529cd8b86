package joining

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

// TestEnvironmentChangesNothing: no secrets of a TLS connection are written to a file, no
// proxy is asked and nothing else is loaded by any of the programs, whatever variables are set (T40).
func TestEnvironmentChangesNothing(t *testing.T) {
	var asked atomic.Int64
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	go func() {
		for {
			c, err := proxy.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.Close()
		}
	}()
	keys := t.TempDir()
	environment := []string{"LD_DEBUG=all", "GODEBUG=tlsmlkem=0,tls10server=1,netdns=cgo,http2debug=2"}
	for _, name := range []string{
		"SSLKEYLOGFILE", "QLOGDIR", "GOCOVERDIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
		"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_DEBUG_OUTPUT", "LD_PROFILE_OUTPUT", "OPENSSL_CONF", "SSL_CERT_FILE",
	} {
		value := filepath.Join(keys, name)
		if strings.HasSuffix(strings.ToLower(name), "proxy") {
			value = "http://" + proxy.Addr().String()
		}
		environment = append(environment, name+"="+value)
	}
	m := newMachine(t, nil, environment...)
	if err := m.join("portal", "bob", m.invite("portal", "bob")); err != nil {
		t.Fatal(err)
	}
	m.start("portal", "bob")
	m.waitStatus("bob", "connected", time.Minute, func(s status) bool { return s.Server.Connected })
	m.carries(t)
	if list, err := os.ReadDir(keys); err != nil || len(list) > 0 {
		t.Errorf("written beside what was to be: %v, %v", list, err)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the proxy of the environment was asked %d times", n)
	}
}

// TestFilesAreTheirOwnersAlone: whatever the umask is, nobody else reads what any of the
// programs has made, or writes beside it (T37).
func TestFilesAreTheirOwnersAlone(t *testing.T) {
	stage.EnterSerially(t) // the umask is the whole process's
	w := newWorld(t)
	defer syscall.Umask(syscall.Umask(0)) // not before: the test's own folder would be open
	w.server.stop()
	if err := os.RemoveAll(w.folder("server")); err != nil {
		t.Fatal(err)
	}
	w.run("server", nil, "init", "--dir", w.folder("server"), "--domain", domain, "--address", w.address)
	w.startServer("server")
	if err := w.join("portal", "ann", w.invite("portal", "ann")); err != nil {
		t.Fatal(err)
	}
	if err := w.join("relay", "relay-1", w.invite("relay", "relay-1", "--address", "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	w.ask("issue", "portal", "plant", "--out", w.folder("plant"))
	w.run("server", nil, "init", "--dir", w.folder("strict"), "--operator", w.folder("operator"), "--domain", domain, "--address", w.address)
	w.start("portal", "ann")
	w.waitStatus("ann", "connected", time.Minute, func(s status) bool { return s.Server.Connected })
	w.ask("ca", "roll")
	w.ask("policy", "apply", filepath.Join(w.folder("server"), "policy.toml"))
	await.Until(t, "the authorities at ann", func() error {
		_, err := os.Stat(filepath.Join(w.folder("ann"), "state", "authorities"))
		return err
	})
	w.server.stop()
	var seen int
	for _, name := range []string{"server", "ann", "relay-1", "plant", "strict", "operator"} {
		err := filepath.WalkDir(w.folder(name), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a file that was there while it was written
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			seen++
			if perm := info.Mode().Perm(); perm&0o077 != 0 {
				t.Errorf("%s has mode %04o", path, perm)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if seen < 30 {
		t.Errorf("only %d files and folders were made", seen)
	}
}

// TestProcessesCannotBeReadByTheirUser: another program of the same user reads no key out
// of one, by ptrace or a core file (T37). The kernel shows it by giving the files under
// /proc to root.
func TestProcessesCannotBeReadByTheirUser(t *testing.T) {
	need.Root(t) // to start a program as another user
	w := newWorld(t)
	if err := os.Chmod(filepath.Dir(w.dir), 0o755); err != nil { // the other user runs what is in it
		t.Fatal(err)
	}
	own := w.folder("own")
	if err := errors.Join(os.Mkdir(own, 0o700), os.Chown(own, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	for role, args := range map[string][]string{
		"server": {"policy", "install"}, "portal": {"join", "--config", filepath.Join(own, "config.toml")}, "relay": {"join", "--config", filepath.Join(own, "config.toml")},
	} {
		cmd := w.command(role, args...)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		wait := readStdin(t, cmd)
		dir := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
		await.Within(t, role+" guards its memory", 10*time.Second, func() error {
			comm, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err != nil || !strings.HasPrefix(string(comm), "netport-") {
				return fmt.Errorf("it is %q yet, %v", comm, err)
			}
			info, err := os.Stat(filepath.Join(dir, "mem"))
			if err != nil {
				return err
			}
			if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
				return fmt.Errorf("its files in /proc belong to user %d", uid)
			}
			return nil
		})
		wait()
	}
}

// readStdin starts a command that reads its standard input, which stays open until the
// function that is returned is called.
func readStdin(t *testing.T, cmd *topo.Cmd) (end func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		in.Close()
		cmd.End() // it fails: there was nothing to read
	}
}
