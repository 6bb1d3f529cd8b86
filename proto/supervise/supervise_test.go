//go:build unix

package supervise

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeManager listens as systemd does.
type fakeManager struct {
	t    *testing.T
	conn *net.UnixConn
}

func listen(t *testing.T) *fakeManager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &fakeManager{t, c}
}

// next returns the next thing that it is told, "" if there is none in that time.
func (m *fakeManager) next(within time.Duration) string {
	m.t.Helper()
	b := make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(within))
	n, err := m.conn.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func (m *fakeManager) want(what, got, want string) {
	m.t.Helper()
	if got != want {
		m.t.Fatalf("%s: the manager was told %q, want %q", what, got, want)
	}
}

const long = 10 * time.Second

func TestReadyComesWithTheFirstGoodLook(t *testing.T) {
	m := listen(t)
	var looks atomic.Int32
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		Run(ctx, slog.New(slog.DiscardHandler), func() (string, error) {
			if looks.Add(1) < 3 {
				return "", errors.New("listeners are being opened")
			}
			return "3 forwards", nil
		})
	})
	m.want("ready", m.next(long), "READY=1\nWATCHDOG=1\nSTATUS=3 forwards")
	if n := looks.Load(); n < 3 {
		t.Errorf("it was ready after %d looks", n)
	}
	stop()
	running.Wait()
	m.want("at the end", m.next(long), "STOPPING=1\nSTATUS=stopping")
}

// TestWatchdogIsKeptByGoodLooksOnly: a daemon that hangs must not look alive.
func TestWatchdogIsKeptByGoodLooksOnly(t *testing.T) {
	m := listen(t)
	t.Setenv("WATCHDOG_USEC", "80000") // 20 ms from look to look
	var hangs sync.Mutex
	var broken atomic.Bool
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		Run(ctx, slog.New(slog.DiscardHandler), func() (string, error) {
			hangs.Lock()
			defer hangs.Unlock()
			if broken.Load() {
				return "", errors.New("a loop stands still")
			}
			return "well", nil
		})
	})
	m.want("ready", m.next(long), "READY=1\nWATCHDOG=1\nSTATUS=well")
	const kept = "WATCHDOG=1\nSTATUS=well"
	m.want("well", m.next(long), kept)

	quiet := func(what string) {
		t.Helper()
		for range 2 { // what was under way may still come
			if m.next(200*time.Millisecond) == "" {
				return
			}
		}
		t.Errorf("%s: the watchdog is kept all the same", what)
	}
	hangs.Lock()
	quiet("a lock is never given back")
	hangs.Unlock()
	m.want("the lock is back", m.next(long), kept)
	broken.Store(true)
	quiet("a loop stands still")
	broken.Store(false)
	m.want("well again", m.next(long), kept)
	stop()
	running.Wait()
	var last string
	for got := m.next(long); got != ""; got = m.next(50 * time.Millisecond) {
		last = got
	}
	if !strings.HasPrefix(last, "STOPPING=1") {
		t.Errorf("last the manager was told %q, want STOPPING=1", last)
	}
}

func TestWithoutAManagerNothingIsLookedAt(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Run(t.Context(), slog.New(slog.DiscardHandler), func() (string, error) {
		t.Error("looked")
		return "", nil
	})
}

// TestManagerKnowsOfReloads: but a daemon that is not ready yet does not become it by one.
func TestManagerKnowsOfReloads(t *testing.T) {
	m := listen(t)
	log, done := slog.New(slog.DiscardHandler), 0
	Reload(log, func() { done++ })
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { Run(ctx, log, func() (string, error) { return "well", nil }) })
	m.want("first", m.next(long), "READY=1\nWATCHDOG=1\nSTATUS=well")
	for !ready.Load() { // it is, a moment after the manager was told
		runtime.Gosched()
	}
	Reload(log, func() {
		done++
		if got := m.next(long); !strings.HasPrefix(got, "RELOADING=1\n") || runtime.GOOS == "linux" && !strings.Contains(got, "MONOTONIC_USEC=") {
			t.Errorf("meanwhile the manager was told %q", got)
		}
	})
	m.want("after it", m.next(long), "READY=1\nSTATUS=the configuration was read anew")
	stop()
	running.Wait()
	m.want("at the end", m.next(long), "STOPPING=1\nSTATUS=stopping")
	Reload(log, func() { done++ })
	if got := m.next(10 * time.Millisecond); got != "" || done != 3 {
		t.Errorf("of a daemon that stops the manager was told %q; %d reloads", got, done)
	}
}
