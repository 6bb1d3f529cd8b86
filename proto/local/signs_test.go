//go:build unix

package local

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/reserve/reservetest"
)

// over asks a daemon with one command, "work", over a connection of the bubble.
func over(t *testing.T, set func(*Server)) (result string, err error) {
	t.Helper()
	s := &Server{log: discard, handlers: make(map[string]served)}
	set(s)
	mine, its := net.Pipe()
	ctx, end := context.WithCancel(t.Context())
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.Answer(ctx, its, callTimeout, nil)
	}()
	err = CallOver(t.Context(), mine, "work", nil, &result)
	mine.Close()
	end()
	<-answered
	return result, err
}

// TestCallerWaitsForADaemonThatWorks: as long as it gives signs of life.
func TestCallerWaitsForADaemonThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result, err := over(t, func(s *Server) {
			s.HandleLong("work", func(context.Context, json.RawMessage) (any, error) {
				time.Sleep(time.Hour)
				return "done", nil
			})
		})
		if err != nil || result != "done" {
			t.Errorf("after an hour of work: %q, %v", result, err)
		}
	})
}

// TestCallerGivesUpACommandThatHangs: one that does not take long by itself.
func TestCallerGivesUpACommandThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, err := over(t, func(s *Server) {
			s.Handle("work", func(ctx context.Context, _ json.RawMessage) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		})
		if took := time.Since(begun); !errors.Is(err, ErrSilent) || took > 3*time.Minute {
			t.Errorf("after %v: %v, want %v", took, err, ErrSilent)
		}
	})
}

// TestCallerGivesUpAPeerThatIsSilent: one that does not even read, one that has read, and
// one that stops within its answer.
func TestCallerGivesUpAPeerThatIsSilent(t *testing.T) {
	for name, peer := range map[string]func(net.Conn){
		"stopped": func(net.Conn) {},
		"has read": func(c net.Conn) {
			readFrame(c, maxRequest)
		},
		"has begun": func(c net.Conn) {
			readFrame(c, maxRequest)
			writeFrame(c, typeSign, nil)
		},
		"in the middle": func(c net.Conn) {
			readFrame(c, maxRequest)
			c.Write([]byte{0, typeResult, 0, 0, 0, 9, '"'})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mine, its := net.Pipe()
				defer mine.Close()
				defer its.Close()
				go peer(its)
				begun := time.Now()
				err := CallOver(t.Context(), mine, "work", nil, nil)
				if took := time.Since(begun); !errors.Is(err, ErrSilent) || took > 3*time.Minute {
					t.Errorf("after %v: %v, want %v", took, err, ErrSilent)
				}
			})
		})
	}
}

// TestCallerThatWasStoppedFindsItsAnswer: the caller's own time ran on meanwhile.
func TestCallerThatWasStoppedFindsItsAnswer(t *testing.T) {
	mine, its := net.Pipe()
	defer mine.Close()
	defer its.Close()
	go func() {
		readFrame(its, maxRequest)
		writeFrame(its, typeResult, []byte("1"))
	}()
	late := &stoppedOnce{Conn: mine}
	var result int
	if err := CallOver(t.Context(), late, "work", nil, &result); err != nil || result != 1 || !late.was {
		t.Errorf("got %d, %v", result, err)
	}
}

// stoppedOnce is the connection of a process that was stopped while it waited for the first
// byte: when it goes on, its deadline is past.
type stoppedOnce struct {
	net.Conn
	was bool
}

func (s *stoppedOnce) Read(b []byte) (int, error) {
	if !s.was {
		s.was = true
		s.SetReadDeadline(time.Unix(1, 0))
	}
	return s.Conn.Read(b)
}

// impatient is for daemons that are really there.
var impatient = patience{first: 200 * time.Millisecond, later: 200 * time.Millisecond}

// TestDaemonThatIsStopped takes nobody out of its queue: callers wait there, and when that
// is full, before it.
func TestDaemonThatIsStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l := queueOfOne(t, path)
	const hint = "a restart helps"
	_, _, err := ask(t.Context(), path, "status", nil, impatient)
	oneLine(t, "stopped", err, "ask the daemon at "+path, "no sign of life for 200ms", hint)
	for err = nil; err == nil; {
		var c net.Conn
		if c, err = net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	_, _, err = ask(t.Context(), path, "status", nil, impatient)
	oneLine(t, "its queue is full", err, "ask the daemon at "+path, "none of the callers that wait was taken for 200ms", hint)
	if !errors.Is(err, ErrSilent) {
		t.Errorf("%v is not ErrSilent", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx, path, "status", nil, here); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("its queue is full, and the caller is interrupted: %v", err)
	}

	// It goes on, and so does who waits.
	asked := make(chan error)
	go func() { asked <- Call(t.Context(), path, "status", nil, nil) }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // those of before say nothing more
			if _, _, err := readFrame(c, maxRequest); err == nil {
				writeFrame(c, typeResult, []byte("1"))
			}
			c.Close()
		}
	}()
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// queueOfOne listens with a queue that is soon full.
func queueOfOne(t *testing.T, path string) net.Listener {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestLastDescriptorIsForCallers: with none left, they are served one after the other.
func TestLastDescriptorIsForCallers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	s, err := Listen(path, discard)
	if err != nil {
		t.Fatal(err)
	}
	s.Handle("who", func(context.Context, json.RawMessage) (any, error) { return "me", nil })
	var callers []net.Conn
	for range 3 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := writeFrame(c, typeRequest, []byte(`{"command":"who"}`)); err != nil {
			t.Fatal(err)
		}
		callers = append(callers, c)
	}
	taken := reservetest.Exhaust(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for i, c := range callers {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, b, err := readFrame(c, maxAnswer); err != nil || string(b) != `"me"` {
			t.Errorf("caller %d: %q, %v", i, b, err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	taken[0].Close() // for the caller's own end
	if err := Call(t.Context(), path, "who", nil, nil); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
