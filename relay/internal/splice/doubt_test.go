package splice

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onSocket calls f with the connection's descriptor.
func onSocket(t *testing.T, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// vanish has a connection's end hear nothing any more, and so answer nothing, as that
// of a portal which has left its address.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	dropAll := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	onSocket(t, c, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &dropAll})
	})
}

// A portal that has moved dials a meeting. What it has left behind ends soon, so that
// the other portal comes to the meeting too, though it had nothing to say; what lives
// goes on.
func TestMeetingEndsWhatItsPortalHasLeft(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	left, old := m.join(0)
	g.wantJoined("forth", left, old)
	g.wantJoined("back", old, left)
	lives, far := m.join(1)
	g.wantJoined("another connection", lives, far)
	vanish(t, left)
	moved := m.meet(0, 1)
	wantReset(t, "the leg that was joined with one that has vanished", old)
	g.wantJoined("the meeting", moved, m.meet(1, 1))
	g.wantJoined("what lives", far, lives)
}

// To ask often costs an idle portal; so that is over when the doubt is.
func TestDoubtOfALegIsShort(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	a, b := m.join(0)
	g.wantJoined("forth", a, b)
	idle := func() (seconds [2]int) {
		g.Relay.mu.Lock()
		defer g.Relay.mu.Unlock()
		for p := range g.sessions[m.ID].pairs {
			for n := range seconds {
				onSocket(t, p.legs[n].tcp, func(fd int) (err error) {
					seconds[n], err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
					return err
				})
			}
		}
		return seconds
	}
	m.meet(1, 1)
	g.await("the leg of the same portal is asked at once", func() bool { return idle() == [2]int{240, 1} })
	g.pass(doubtTime - time.Second)
	g.await("it still is", func() bool { return idle() == [2]int{240, 1} })
	g.pass(time.Second)
	g.await("it is asked as rarely as any", func() bool { return idle() == [2]int{240, 240} })
}
