package vanish

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quick is a Watch for connections on loopback.
func quick() *Watch {
	w := New()
	w.limit, w.every = 2*time.Second, 100*time.Millisecond
	return w
}

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// deafen has the system drop whatever comes for a connection, before TCP.
func deafen(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	var set error
	raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	if set != nil {
		t.Fatal(set)
	}
}

// fill writes until nothing more is taken.
func fill(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
			break
		}
	}
	conn.SetWriteDeadline(time.Time{})
}

func TestVanishedPeerIsFound(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(a, b *net.TCPConn){
		"with data on its way": func(a, b *net.TCPConn) {
			deafen(t, b)
			a.Write([]byte("anybody there?"))
		},
		"with a full window": func(a, b *net.TCPConn) {
			fill(t, a)
			deafen(t, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			before(a, b)
			begin := time.Now()
			w := quick()
			w.Add(a)
			a.SetReadDeadline(begin.Add(20 * time.Second))
			_, err := a.Read(make([]byte, 1))
			took := time.Since(begin)
			if !errors.Is(err, os.ErrDeadlineExceeded) || took < w.limit || took > 10*time.Second {
				t.Errorf("Read returned %v after %v, want a time-out after %v or a little more", err, took, w.limit)
			}
		})
	}
}

// TestStalledApplicationIsNotTakenForVanished: its window is full for long, but
// its system answers.
func TestStalledApplicationIsNotTakenForVanished(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	fill(t, a)
	w := quick()
	w.Add(a)
	quiet, _ := pair(t)
	w.Add(quiet)
	a.SetReadDeadline(time.Now().Add(3 * w.limit))
	a.Read(make([]byte, 1))
	w.mu.Lock()
	_, watched := w.conns[a]
	_, other := w.conns[quiet]
	w.mu.Unlock()
	if !watched || !other {
		t.Errorf("a connection was given up: the stalled one is watched %t, the quiet one %t", watched, other)
	}
	if s, open := look(a); !open {
		t.Errorf("state %+v, open %t", s, open)
	}
	b.Close()
}

func TestClosedConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	w := quick()
	for range 100 {
		a, _ := pair(t)
		w.Add(a)
		a.Close()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; <-tick.C {
		w.mu.Lock()
		n, idle := len(w.conns), w.timer == nil
		w.mu.Unlock()
		if n == 0 && idle {
			return
		}
	}
	t.Errorf("%d connections are kept", len(w.conns))
}
