package splice

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/handover"
	"github.com/netport/netport/proto/identity"

	"github.com/netport/netport/relay/internal/drop"
)

// door returns the address of a port that another daemon has: it reads so many bytes of what comes, hands the connection
// over and closes its own descriptor, unless keep takes the connection.
func (g *rig) door(read int, keep func(*net.TCPConn)) string {
	g.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	var done sync.WaitGroup
	g.t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, read)
			if _, err := io.ReadFull(c, head); err != nil {
				g.t.Errorf("read %d bytes: %v", read, err)
			} else if err := handover.Give(g.handed, c.(*net.TCPConn), head); err != nil {
				g.t.Error(err)
			}
			if keep != nil {
				keep(c.(*net.TCPConn))
				continue
			}
			c.Close()
		}
	})
	return l.Addr().String()
}

// TestLegsAreTakenOver: however much of them another daemon has read, bare or inside TLS, and from where they come.
func TestLegsAreTakenOver(t *testing.T) {
	g, ca := tlsRig(t)
	portal := ca.Credentials(identity.Portal, "a")
	shared := g.shared
	forth, back := noise(1<<20), noise(1<<20+5)
	for n, c := range []struct {
		read int
		tls  bool
	}{{5, false}, {64, false}, {1, true}, {6, true}, {400, true}} {
		m := g.session()
		g.shared = g.door(c.read, nil)
		a := net.Conn(nil)
		if c.tls {
			a = g.dialTLS(portal, m.preface(0, 0))
		} else {
			a = g.dial(g.shared, append(m.preface(0, 0), forth[:100]...))
		}
		b := g.dial(shared, m.preface(1, 0))
		rest := forth
		if !c.tls {
			rest = forth[100:]
		}
		go func() {
			a.Write(rest)
			a.(interface{ CloseWrite() error }).CloseWrite()
		}()
		g.wantRead("forth", b, forth)
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%+v: after the end: read %d bytes, %v; want EOF", c, n, err)
		}
		go func() {
			b.Write(back)
			b.CloseWrite()
		}()
		g.wantRead("back", a, back)
		if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%+v: after the end: read %d bytes, %v; want EOF", c, n, err)
		}
		if got := g.TakenOver(); got != uint64(n+1) {
			t.Errorf("%d connections are counted as taken over, want %d", got, n+1)
		}
	}
}

// TestWhatIsTakenOverIsJudgedAsWhatIsAccepted: by the same rules, within the same time and numbers, by the client's address.
func TestWhatIsTakenOverIsJudgedAsWhatIsAccepted(t *testing.T) {
	g, ca := tlsRig(t)
	m := g.session()
	wrong := m.preface(0, 0)
	wrong[63] ^= 1
	for _, c := range []struct {
		what  string
		read  int
		first []byte
		why   drop.Reason
	}{
		{"wrong MAC", 5, wrong, drop.WrongMAC},
		{"no session", 5, (&meeting{}).preface(0, 0), drop.UnknownSession},
		{"HTTP", 5, []byte("GET / HTTP/1.1\r\nHost: relay.example\r\nUser-Agent: something longer than a preface\r\n\r\n"), drop.Malformed},
		{"payload that was read", 65, append(m.preface(0, 0), 'x'), drop.Malformed},
	} {
		before := g.cfg.Drops.Count(c.why)
		g.wantClosed(c.what, g.dial(g.door(c.read, nil), c.first), c.why, before)
	}
	stranger := ca.Credentials(identity.Server, "server")
	g.shared = g.door(100, nil)
	if _, err := g.dialTLS(stranger, nil).Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("TLS of another role: %v, want an alert", err)
	}
	g.await("the handshake is counted as failed", func() bool { return g.cfg.Drops.Count(drop.TLS) == 1 })
	g.await("nothing waits", func() bool { return g.Waiting() == Waiting{} })

	slow := newRig(t, nil, func(r *Relay) { r.handshake = 200 * time.Millisecond })
	slow.wantClosed("silence", slow.dial(slow.door(5, nil), slow.session().preface(0, 0)[:10]), drop.HandshakeTimeout, 0)

	far := newRig(t, nil, func(r *Relay) { r.cfg.Sources.AllowLoopback = false })
	far.wantClosed("a leg from loopback", far.dial(far.door(5, nil), far.session().preface(0, 0)), drop.ForbiddenSource, 0)

	full := newRig(t, nil)
	door := full.door(1, nil)
	oldest := full.dial(door, []byte("N"))
	full.await("it waits", func() bool { return full.Waiting().Unproven == 1 })
	for range 200 { // of one prefix are let wait
		full.dial(door, []byte("N"))
	}
	full.wantClosed("the oldest of too many", oldest, drop.Evicted, 0)
}

// TestTakenConnectionsAreTunedLikeAcceptedOnes: a dead leg is found as soon.
func TestTakenConnectionsAreTunedLikeAcceptedOnes(t *testing.T) {
	g := newRig(t, nil)
	kept := make(chan *net.TCPConn, 1)
	door := g.door(5, func(c *net.TCPConn) { kept <- c })
	g.dial(door, g.session().preface(0, 0))
	g.await("the leg waits", func() bool { return g.Waiting().Legs == 1 })
	c := <-kept // the same socket
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(level, name int) (value int) {
		raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) })
		return value
	}
	if on, idle := option(unix.SOL_SOCKET, unix.SO_KEEPALIVE), option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); on != 1 || idle != int(keepAlive.Idle.Seconds()) {
		t.Errorf("keepalive is %d, after %d s idle, want 1 and %v", on, idle, keepAlive.Idle)
	}
	if again := option(unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS); err == nil && again != int(maxRetry.Milliseconds()) {
		t.Errorf("it is sent again after up to %d ms, want %v", again, maxRetry)
	}
}

// TestWrongHandOversAreToldAndLeaveNothing: the relay goes on taking, and stops with a caller who is silent.
func TestWrongHandOversAreToldAndLeaveNothing(t *testing.T) {
	var b bytes.Buffer // read when the relay has stopped
	g := newRig(t, nil, func(r *Relay) { r.cfg.Log = slog.New(slog.NewTextHandler(&b, nil)) })
	m := g.session()
	m.join(9)
	g.await("they are joined", func() bool { return g.Pairs() == 1 })
	fds, routines := descriptors(t), runtime.NumGoroutine()
	call := func() *net.UnixConn {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: g.handed, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 100 {
		c := call()
		if _, err := c.Write([]byte("no descriptor")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	g.await("they are gone", func() bool { return descriptors(t) == fds && runtime.NumGoroutine() <= routines })
	a := g.dial(g.door(5, nil), m.preface(0, 0))
	c := g.dial(g.shared, m.preface(1, 0))
	a.Write([]byte("x"))
	g.wantRead("after all that", c, []byte("x"))
	silent := call()
	defer silent.Close()
	began := time.Now()
	g.stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if _, err := os.Stat(g.handed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if n := strings.Count(b.String(), "connection not taken over"); n != 1 || !strings.Contains(b.String(), "13 bytes with 0 descriptors") {
		t.Errorf("it was logged %d times, want once:\n%s", n, b.String())
	}
	if n := g.TakenOver(); n != 1 {
		t.Errorf("%d are counted as taken over, want 1", n)
	}
}
