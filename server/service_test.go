package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/overquic"
)

// service is the real program as systemd starts it: it hands over a listening socket and
// hears how the daemon is.
type service struct {
	t       *testing.T
	config  string
	port    *os.File // what systemd listens on
	address string
	notify  *net.UnixConn
	path    string
}

func newService(t *testing.T) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // port goes on listening
	s := &service{t: t, port: port, address: l.Addr().String(), path: filepath.Join(t.TempDir(), "notify")}
	t.Cleanup(func() { port.Close() })
	if s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.notify.Close() })
	dir := filepath.Join(t.TempDir(), "server")
	if out, err := exec.Command("netport-server", "init", "--dir", dir, "--domain", "example.org", "--address", s.address).CombinedOutput(); err != nil {
		t.Fatalf("init: %v: %s", err, out)
	}
	s.config = filepath.Join(dir, "config.toml")
	return s
}

// start runs the program with its socket, and more of them, by the protocol of sd_listen_fds(3): the shell
// knows the process id before the program does.
func (s *service) start(more ...*os.File) *exec.Cmd {
	s.t.Helper()
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=$2 exec netport-server run --config "$1"`, "sh", s.config, strconv.Itoa(1+len(more)))
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.path, "WATCHDOG_USEC=2000000")
	c.ExtraFiles = append([]*os.File{s.port}, more...)
	log, err := c.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			s.t.Log(lines.Text())
		}
	}()
	s.t.Cleanup(func() {
		c.Process.Kill()
		<-done
		c.Wait()
	})
	return c
}

// told waits until the program has said something to the manager.
func (s *service) told(want string) {
	s.t.Helper()
	b := make([]byte, 4096)
	s.notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		n, err := s.notify.Read(b)
		if err != nil {
			s.t.Fatalf("the program has not told its manager %q: %v", want, err)
		}
		if strings.HasPrefix(string(b[:n]), want) {
			return
		}
	}
}

// served wants the server's certificate on a connection.
func (s *service) served(c net.Conn) {
	s.t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	client := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.ProtocolControl}})
	if err := client.Handshake(); err != nil {
		s.t.Fatalf("the server does not serve the socket that it was handed: %v", err)
	}
	id, err := identity.FromCertificate(client.ConnectionState().PeerCertificates[0])
	if err != nil || id.Role != identity.Server {
		s.t.Errorf("%v serves there (%v), want the server", id, err)
	}
}

func (s *service) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// TestWhoDialsWhileTheServerRestartsWaits: the manager holds the port meanwhile, and is
// told when the server is ready, alive and stopping.
func TestWhoDialsWhileTheServerRestartsWaits(t *testing.T) {
	s := newService(t)
	first := s.start()
	s.told("READY=1")
	s.served(s.dial())
	s.told("WATCHDOG=1\nSTATUS=connected: portals 0, relays 0")
	first.Process.Signal(syscall.SIGTERM)
	s.told("STOPPING=1")
	if err := first.Wait(); err != nil {
		t.Fatalf("the server stopped with %v", err)
	}
	waiting := s.dial()
	s.start()
	s.told("READY=1")
	s.served(waiting)
}

// TestSocketThatTheConfigurationDoesNotNameIsRefused: else nobody would be served there,
// or where nobody looks.
func TestSocketThatTheConfigurationDoesNotNameIsRefused(t *testing.T) {
	s := newService(t)
	b, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), `listen = ["`+s.address+`"]`, `listen = ["127.0.0.2:`+strings.Split(s.address, ":")[1]+`"]`, 1)
	if changed == string(b) {
		t.Fatalf("the configuration has no line to change:\n%s", b)
	}
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec netport-server run --config "$1"`, "sh", s.config)
	c.ExtraFiles = []*os.File{s.port}
	var said strings.Builder
	c.Stderr = io.Writer(&said)
	if err := c.Run(); err == nil || !strings.Contains(said.String(), "listen on "+s.address+", which the service manager has opened") {
		t.Errorf("it ended with %v and said %q", err, said.String())
	}
}

// TestSocketForUDP: the manager holds that port too, and it is one that the configuration names.
func TestSocketForUDP(t *testing.T) {
	s := newService(t)
	at, err := net.ResolveUDPAddr("udp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	both, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	udp.Close() // both goes on listening
	first := s.start(both)
	s.told("READY=1")
	s.served(s.dial())
	stranger := identitytest.New(t).Credentials(identity.Portal, "stranger")
	_, _, err = overquic.Dial(t.Context(), overquic.Dialer{}, s.address, func() (*tls.Config, struct{}) {
		return stranger.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")), struct{}{}
	})
	if err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("over UDP a portal of another domain hears %v", err)
	}
	first.Process.Signal(syscall.SIGTERM)
	if err := first.Wait(); err != nil {
		t.Fatalf("the server stopped with %v", err)
	}

	b, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, append([]byte("listen_udp = []\n"), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec netport-server run --config "$1"`, "sh", s.config)
	c.ExtraFiles = []*os.File{s.port, both}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "listen on "+s.address+" over UDP, which the service manager has opened") {
		t.Errorf("it ended with %v and said %q", err, out)
	}
}
