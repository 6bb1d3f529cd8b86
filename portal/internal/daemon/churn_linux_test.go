package daemon

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var churn = flag.Int("churn", 200, "how many sessions come and go; G9 says 10000")

// G9, the portals' part: sessions that come and go, each used by connections that
// move into it and by one that begins in it, leave nothing in two portals.
func TestSessionsThatComeAndGoLeaveNothing(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	w.addRelay()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", g.Listen.HostPort())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	use := func(conn net.Conn) {
		t.Helper()
		if got, err := ask(conn, "still here?"); got != "still here?" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	in := func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.sessions[pairOf("ann", "factory")].id.String()
	}
	// A peer may not move one stream much more often than these are moved, and a
	// portal may not tell its server of more that ends.
	const moves, pace = 50, 10 * time.Millisecond
	last := 0
	series := func(n int) {
		lasting := dial()
		defer lasting.Close()
		use(lasting)
		began := time.Now()
		for range n {
			last++
			w.mu.Lock()
			w.done = w.done[:0]
			w.mu.Unlock()
			w.move("ann", "factory", w.relays[last%2])
			short := dial()
			w.wait("in the new session alone", func() bool {
				for _, p := range []*testPortal{ann, factory} {
					if s := p.Status().Tunnels; len(s) != 1 || s[0].Session != in() || len(s[0].Ways) != s[0].Carriers {
						return false
					}
				}
				return true
			})
			use(lasting)
			use(short)
			short.Close()
		}
		w.wait("time for as many messages", func() bool { return time.Since(began) >= time.Duration(n)*pace })
	}
	// settled is how many sockets and goroutines there are when nothing changes
	// any more, without the sockets of the tunnel's carriers: how many of these
	// stay is decided by how soon what was open has ended.
	settled := func() (open, routines int) {
		w.Helper()
		same := 0
		w.wait("at rest", func() bool {
			// Each has two ends at portals and two at the relay.
			n := sockets(t) - 4*ann.Status().Tunnels[0].Carriers
			if same++; n != open {
				open, same = n, 0
			}
			return same > 300 // at 5 ms: what is closed may wait a second for its peer
		})
		return open, runtime.NumGoroutine()
	}
	series(4) // what is made once is there before
	open, routines := settled()
	began := time.Now()
	for left := *churn; left > 0; left -= moves {
		series(min(left, moves))
	}
	took := time.Since(began)
	t.Logf("%d sessions in %v: %v each", *churn, took, took/time.Duration(*churn))
	if nowOpen, nowRoutines := settled(); nowOpen != open || nowRoutines > routines+10 {
		t.Errorf("%d sockets and %d goroutines, and %d and %d before", nowOpen, nowRoutines, open, routines)
	}
}

// sockets is how many this process has open. Pipes are left out: the echo service's
// io.Copy keeps a pool of them.
func sockets(t *testing.T) (n int) {
	t.Helper()
	const dir = "/proc/self/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range list {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
