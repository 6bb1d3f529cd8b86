//go:build unix

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var discard = slog.New(slog.DiscardHandler)

// serve runs a daemon's socket with the handlers that set registers, until the
// test is over.
func serve(t testing.TB, set func(*Server)) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	s, err := Listen(path, discard)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return path, stop
}

// oneLine checks that err is one line with all of parts in it.
func oneLine(t testing.TB, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one with %q", what, parts)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%s: error %q, want it to have %q", what, err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: error of several lines: %q", what, err)
	}
}

func TestCall(t *testing.T) {
	type args struct{ A, B int }
	path, _ := serve(t, func(s *Server) {
		s.Handle("add", func(_ context.Context, raw json.RawMessage) (any, error) {
			var a args
			if err := json.Unmarshal(raw, &a); err != nil {
				return nil, err
			}
			return a.A + a.B, nil
		})
		s.Handle("fail", func(context.Context, json.RawMessage) (any, error) {
			return nil, errors.New("ping factory-1: portal offline")
		})
		s.Handle("echo", func(_ context.Context, raw json.RawMessage) (any, error) { return raw, nil })
		s.Handle("unspeakable", func(context.Context, json.RawMessage) (any, error) { return make(chan int), nil })
	})
	var sum int
	if err := Call(t.Context(), path, "add", args{20, 22}, &sum); err != nil || sum != 42 {
		t.Errorf("add: %d, %v; want 42", sum, err)
	}
	if err := Call(t.Context(), path, "add", args{1, 2}, nil); err != nil {
		t.Errorf("add without a result: %v", err)
	}
	var text string
	oneLine(t, "a result of another type", Call(t.Context(), path, "add", args{}, &text), "read the daemon's answer")

	err := Call(t.Context(), path, "fail", nil, nil)
	var said *Error
	if !errors.As(err, &said) || err.Error() != "ping factory-1: portal offline" {
		t.Errorf("fail: %v, want the daemon's own words", err)
	}
	oneLine(t, "unspeakable", Call(t.Context(), path, "unspeakable", nil, nil), "chan int")
	oneLine(t, "unknown command", Call(t.Context(), path, "none", nil, nil), `no command "none"`, "same version")

	large := strings.Repeat("x", 1<<20)
	if err := Call(t.Context(), path, "echo", large, &text); err != nil || text != large {
		t.Errorf("1 MB there and back: %d bytes, %v", len(text), err)
	}
	oneLine(t, "too large", Call(t.Context(), path, "echo", strings.Repeat("x", maxRequest), &text), "at most")
}

func TestCallersAreServedTogether(t *testing.T) {
	meet := make(chan struct{})
	path, _ := serve(t, func(s *Server) {
		s.Handle("give", func(ctx context.Context, _ json.RawMessage) (any, error) { meet <- struct{}{}; return nil, nil })
		s.Handle("take", func(ctx context.Context, _ json.RawMessage) (any, error) { <-meet; return nil, nil })
	})
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			if err := Call(t.Context(), path, []string{"give", "take"}[i%2], nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
}

// TestStream sends a lot, half-closes, and only then gets its answer.
func TestStream(t *testing.T) {
	path, _ := serve(t, func(s *Server) {
		s.HandleStream("count", func(_ context.Context, raw json.RawMessage) (func(context.Context, net.Conn), error) {
			var unit string
			if json.Unmarshal(raw, &unit) != nil || unit == "" {
				return nil, errors.New("count what?")
			}
			return func(_ context.Context, c net.Conn) {
				n, err := io.Copy(io.Discard, c)
				fmt.Fprintf(c, "%d %s %v", n, unit, err)
			}, nil
		})
	})
	c, err := Stream(t.Context(), path, "count", "bytes")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 5_000_000)); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "5000000 bytes <nil>" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = Stream(t.Context(), path, "count", nil)
	oneLine(t, "refused stream", err, "count what?")
}

func TestNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	err := Call(t.Context(), path, "x", nil, nil)
	oneLine(t, "no socket", err, path, "no daemon is running there", `"run"`)
	if !errors.Is(err, ErrNoDaemon) {
		t.Errorf("%v is not ErrNoDaemon", err)
	}
	leaveSocket(t, path)
	if err := Call(t.Context(), path, "x", nil, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("socket of a dead daemon: %v is not ErrNoDaemon", err)
	}
}

// leaveSocket leaves a socket that nobody serves, as a killed daemon does.
func leaveSocket(t testing.TB, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	leaveSocket(t, path)
	s, err := Listen(path, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	path, stop := serve(t, func(s *Server) {
		s.Handle("who", func(context.Context, json.RawMessage) (any, error) { return "first", nil })
	})
	_, err := Listen(path, discard)
	oneLine(t, "second daemon", err, path, "another daemon runs there")
	var who string
	if err := Call(t.Context(), path, "who", nil, &who); err != nil || who != "first" {
		t.Errorf("the first answers %q, %v", who, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	s, err := Listen(path, discard)
	if err != nil {
		t.Fatalf("after the first has stopped: %v", err)
	}
	s.Close()
}

// TestForeignFilesAreLeftAlone has what may stand at the socket's path.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	for name, place := range map[string]func(path, target string) error{
		"a file":            func(path, _ string) error { return os.WriteFile(path, []byte("keep"), 0o600) },
		"a link to a file":  func(path, target string) error { return os.Symlink(target, path) },
		"a link to nothing": func(path, target string) error { return os.Symlink(target+".none", path) },
		"a folder":          func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"a pipe":            func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"a link to a dead socket": func(path, target string) error {
			leaveSocket(t, target+".sock")
			return os.Symlink(target+".sock", path)
		},
	} {
		dir := t.TempDir()
		path, target := filepath.Join(dir, "sock"), filepath.Join(t.TempDir(), "target")
		if err := os.WriteFile(target, []byte("keep"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := place(path, target); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Listen(path, discard)
		oneLine(t, name, err, path, "not a socket of ours")
		after, err := os.Lstat(path)
		if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s was touched: %v, %v", name, after, err)
		}
		if b, err := os.ReadFile(target); err != nil || string(b) != "keep" {
			t.Errorf("%s: the target holds %q, %v", name, b, err)
		}
		if _, err := os.Lstat(target + ".none"); err == nil {
			t.Errorf("%s: the target was made", name)
		}
	}

	// The lock beside the socket is not written through a link either.
	path, target := filepath.Join(t.TempDir(), "sock"), filepath.Join(t.TempDir(), "target")
	if err := os.Symlink(target, path+".lock"); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(path, discard)
	oneLine(t, "a link as lock", err, path)
	if _, err := os.Lstat(target); err == nil {
		t.Error("a link as lock: the target was made")
	}
}

func TestBadPlacesForASocket(t *testing.T) {
	dir := t.TempDir()
	fit := filepath.Join(dir, strings.Repeat("a", maxPath-len(dir)-1))
	s, err := Listen(fit, discard)
	if err != nil {
		t.Errorf("path of %d bytes: %v", len(fit), err)
	} else {
		s.Close()
	}
	_, err = Listen(fit+"a", discard)
	oneLine(t, "path of 108 bytes", err, "108 bytes", "at most 107")
	oneLine(t, "its caller", Call(t.Context(), fit+"a", "x", nil, nil), "108 bytes", "at most 107")

	_, err = Listen(filepath.Join(dir, "none", "sock"), discard)
	oneLine(t, "no folder", err, "folder")
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	_, err = Listen(filepath.Join(file, "sock"), discard)
	oneLine(t, "a file as folder", err, "not a folder")
	for _, mode := range []os.FileMode{0o777, 0o775, 0o722, os.ModeSticky | 0o777} {
		open := filepath.Join(dir, fmt.Sprintf("open%o", mode))
		os.Mkdir(open, 0o700)
		os.Chmod(open, mode)
		_, err = Listen(filepath.Join(open, "sock"), discard)
		oneLine(t, "folder that others write to", err, "chmod go-w "+open)
	}
}

func TestSocketIsForItsOwnerWhateverTheUmask(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0))
	s, err := Listen(filepath.Join(dir, "sock"), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{"sock", "sock.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, info.Mode(), err)
		}
	}
}

func TestOnlyTheOwnerAndRootAreAdmitted(t *testing.T) {
	me := os.Geteuid()
	for uid, want := range map[int]bool{me: true, 0: true, me + 1: false, 65534: me == 65534} {
		if err := admit(uid); (err == nil) != want {
			t.Errorf("user %d: %v, want admitted %v", uid, err, want)
		}
	}
}

// TestRunEndsWithItsContext has callers at every stage: connected and silent,
// in a command, in a stream, and with an answer they do not read.
func TestRunEndsWithItsContext(t *testing.T) {
	var inside sync.WaitGroup
	inside.Add(3)
	path, stop := serve(t, func(s *Server) {
		s.Handle("wait", func(ctx context.Context, _ json.RawMessage) (any, error) {
			inside.Done()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		s.Handle("large", func(context.Context, json.RawMessage) (any, error) {
			inside.Done()
			return strings.Repeat("x", 16<<20), nil
		})
		s.HandleStream("stream", func(context.Context, json.RawMessage) (func(context.Context, net.Conn), error) {
			return func(_ context.Context, c net.Conn) {
				inside.Done()
				io.Copy(io.Discard, c)
			}, nil
		})
	})
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	dial().Write([]byte{0, 1, 0})
	for _, command := range []string{"wait", "large", "stream"} {
		b, _ := json.Marshal(request{Command: command})
		writeFrame(dial(), typeRequest, b)
	}
	inside.Wait()
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run goes on")
	}
}

func TestCancelledCallerLeaves(t *testing.T) {
	inside := make(chan struct{})
	path, _ := serve(t, func(s *Server) {
		s.Handle("wait", func(ctx context.Context, _ json.RawMessage) (any, error) {
			close(inside)
			<-ctx.Done()
			return nil, nil
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-inside; cancel() }()
	if err := Call(ctx, path, "wait", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// TestBusyDaemonSaysSo fills every place with callers that say nothing; the
// next is told, and served again once one has left.
func TestBusyDaemonSaysSo(t *testing.T) {
	path, _ := serve(t, func(s *Server) {
		s.Handle("ok", func(context.Context, json.RawMessage) (any, error) { return 1, nil })
	})
	var held []net.Conn
	for range maxCallers {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	oneLine(t, "one too many", Call(t.Context(), path, "ok", nil, nil), "busy")
	held[0].Close()
	for {
		if err := Call(t.Context(), path, "ok", nil, nil); err == nil {
			break
		} else if !strings.Contains(err.Error(), "busy") {
			t.Fatal(err)
		}
	}
}

// TestBadRequestsAreRefused sends frames no caller of ours would.
func TestBadRequestsAreRefused(t *testing.T) {
	path, _ := serve(t, func(s *Server) {
		s.Handle("ok", func(context.Context, json.RawMessage) (any, error) { return 1, nil })
	})
	frame := func(t uint16, body string) []byte {
		var b bytes.Buffer
		writeFrame(&b, t, []byte(body))
		return b.Bytes()
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string // of the answer; empty: none
	}{
		"HTTP":             {[]byte("GET / HTTP/1.1\r\n\r\n"), ""},
		"length 2^32-1":    {[]byte{0, 1, 0xff, 0xff, 0xff, 0xff}, ""},
		"cut":              {frame(typeRequest, `{"command":"ok"}`)[:10], ""},
		"an answer":        {frame(typeResult, "1"), ""},
		"empty":            {frame(typeRequest, ""), "not JSON"},
		"no JSON":          {frame(typeRequest, "ok"), "not JSON"},
		"nested 1,000,000": {frame(typeRequest, `{"command":"ok","args":`+strings.Repeat("[", 1_000_000)), "not JSON"},
		"another shape":    {frame(typeRequest, `[1]`), "not JSON"},
		"no command":       {frame(typeRequest, `{}`), "no command"},
		"terminal escape":  {frame(typeRequest, `{"command":"\u001b[2J\n"}`), `"\x1b[2J\n"`},
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Write(tt.b)
			c.(*net.UnixConn).CloseWrite()
		}()
		typ, b, err := readFrame(c, maxAnswer)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%s: answered %d %q", name, typ, b)
		case tt.want != "" && (err != nil || typ != typeError || !strings.Contains(string(b), tt.want)):
			t.Errorf("%s: answered %d %q, %v; want an error with %q", name, typ, b, err, tt.want)
		}
		c.Close()
	}
}

// TestLengthAloneAllocatesNothing announces the largest frame and sends none
// of it.
func TestLengthAloneAllocatesNothing(t *testing.T) {
	got := testing.AllocsPerRun(10, func() {
		_, b, err := readFrame(bytes.NewReader([]byte{0, 1, 0x01, 0xff, 0xff, 0xff}), maxRequest)
		if !errors.Is(err, io.ErrUnexpectedEOF) || cap(b) > 4096 {
			t.Errorf("%d bytes allocated, %v", cap(b), err)
		}
	})
	if got > 10 {
		t.Errorf("%v allocations", got)
	}
}
