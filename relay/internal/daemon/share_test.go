package daemon

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/handover"
	"github.com/netport/netport/proto/privilege"

	"github.com/netport/netport/relay/internal/config"
)

// runOnce runs a relay that is not to come up; one that does is stopped soon.
func runOnce(t *testing.T, cfg config.Config) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return New(cfg, slog.New(slog.DiscardHandler), func(privilege.Set) error { return nil }).Run(ctx)
}

// TestAnotherProgramHasTheSharedPort: the relay tells of it and does not listen there, carries what is handed over, and
// tells of no more when it has stopped.
func TestAnotherProgramHasTheSharedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	s := newServer(t, func(c *config.Config) {
		c.SharedTCP, c.TakeOver, c.TakeOverFrom = port, filepath.Join(filepath.Dir(c.Socket), "taken.sock"), "nobody"
	})
	s.wantReady() // with the port
	m := order("a", "b")
	s.create(m)
	a, b := legs(t, m, port)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		head := make([]byte, 5)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if err := handover.Give(s.cfg.TakeOver, c.(*net.TCPConn), head); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	carry(t, a, b, "forth")
	carry(t, b, a, "back")
	if info, err := os.Stat(s.cfg.TakeOver); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket for another user: %v, %v", info.Mode(), err)
	}

	second := s.cfg
	second.Socket, second.State = second.Socket+"2", second.State+"2"
	err = runOnce(t, second)
	if err == nil || !strings.Contains(err.Error(), "take over the connections of port") || !strings.Contains(err.Error(), "another daemon runs there") {
		t.Errorf("a second relay at the same socket: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.cfg.TakeOver); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestWhoHandsOverMustBeAUser(t *testing.T) {
	s := newServer(t, defaults)
	cfg := s.cfg
	cfg.SharedTCP, cfg.TakeOver, cfg.TakeOverFrom = 1, cfg.Socket+".taken", "nobody-here"
	cfg.Socket, cfg.State = cfg.Socket+"2", cfg.State+"2"
	const want = `take_over_from: no user "nobody-here" on this machine`
	if mistakes := errors.Join(Check(cfg)...); mistakes == nil || !strings.Contains(mistakes.Error(), want) {
		t.Errorf("run --check says %v, want %q", mistakes, want)
	}
	run := func(want string) {
		t.Helper()
		err := runOnce(t, cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run says %v, want %q", err, want)
		}
		for _, socket := range []string{cfg.Socket, cfg.TakeOver} {
			if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket %s is left behind: %v", socket, err)
			}
		}
	}
	run(want)
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.TakeOverFrom, cfg.SharedUDP = "", uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	run("open the shared UDP port")
}
