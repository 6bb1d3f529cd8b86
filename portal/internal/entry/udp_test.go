package entry

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/wire"
)

// carried is a flow that keeps what it is sent.
type carried struct {
	sent chan []byte

	mu     sync.Mutex // guards the following
	closed wire.Reason
}

func (c *carried) Send(b []byte) bool {
	c.sent <- bytes.Clone(b)
	return true
}

func (c *carried) Close(r wire.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = r
}

func (c *carried) reason() wire.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// client makes a client whose flow is open.
func (u *udpForward) client(source netip.AddrPort, used time.Time) (*udpFlow, *carried) {
	to := &carried{sent: make(chan []byte, 4)}
	c := &udpFlow{u: u, source: source, flow: to, begun: used, used: used}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.flows[source] = c
	return c, to
}

func testUDP(t *testing.T, target string) *udpForward {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := testForward(t)
	f.targets[0].current.Target = endpoint.MustParse(target)
	return newUDPForward(f, conn)
}

func source(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(n >> 8), byte(n)}), 5000)
}

func TestFlowsEndWhenTheyAreIdle(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		what     string
		target   string
		lasted   time.Duration // from the first to the last datagram
		answered bool
		want     time.Duration
	}{
		{"a DNS question and its answer", "udp://10.0.0.5:53", time.Second, true, 30 * time.Second},
		{"a question without an answer", "udp://10.0.0.5:53", time.Second, false, 2 * time.Minute},
		{"a long talk at a well-known port", "udp://10.0.0.5:500", 3 * time.Second, true, 2 * time.Minute},
		{"a question at another port", "udp://10.0.0.5:5060", 0, true, 2 * time.Minute},
	} {
		u := testUDP(t, tt.target)
		c, to := u.client(source(1), now)
		c.begun, c.answered = now.Add(-tt.lasted), tt.answered
		u.sweep(now.Add(tt.want - time.Millisecond))
		if r := to.reason(); r != wire.ReasonNone {
			t.Errorf("%s: ended before %v: %v", tt.what, tt.want, r)
		}
		u.sweep(now.Add(tt.want))
		if r := to.reason(); r != wire.ReasonIdle {
			t.Errorf("%s: after %v: %v, want it ended", tt.what, tt.want, r)
		}
	}
}

// TestManyClientsMakeRoomForNewOnes: one that makes a new port for each datagram
// does not shut the others out, nor take flows that are in use.
func TestManyClientsMakeRoomForNewOnes(t *testing.T) {
	u := testUDP(t, "udp://10.0.0.5:53")
	now := time.Now()
	ends := make(map[int]*carried)
	for i := range maxFlows {
		used := now.Add(-evictIdle - time.Duration(maxFlows-i)*time.Millisecond)
		if i >= maxFlows/2 {
			used = now // half of them is in use
		}
		_, ends[i] = u.client(source(i), used)
	}
	u.datagram(now, netip.MustParseAddrPort("127.1.0.1:1"), []byte("x"), nil)
	if got := u.dropped.Load(); got != 1 {
		t.Errorf("%d datagrams dropped, want that which came first", got)
	}
	ended := 0
	for i, to := range ends {
		if to.reason() == wire.ReasonNone {
			continue
		}
		ended++
		if i >= maxFlows/10 {
			t.Errorf("client %d had to go, the longest idle come first", i)
		}
	}
	if ended != maxFlows/10 {
		t.Errorf("%d clients had to go, want %d", ended, maxFlows/10)
	}
	for _, to := range ends {
		to.Close(wire.ReasonNone)
	}
	u.datagram(now, netip.MustParseAddrPort("127.1.0.2:1"), []byte("x"), nil)
	for _, to := range ends {
		if to.reason() != wire.ReasonNone {
			t.Fatal("looked for room twice within a second")
		}
	}
}

// TestDrainLetsClientsFinish: whoever is there when the portal stops gets his
// answers; nobody new is taken; when the last has gone so does the listener.
func TestDrainLetsClientsFinish(t *testing.T) {
	u := testUDP(t, "udp://10.0.0.5:53")
	u.listener = u.conn
	at := u.conn.LocalAddr().(*net.UDPAddr)
	dial := func() *net.UDPConn {
		c, err := net.DialUDP("udp4", nil, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	known, late := dial(), dial()
	c, to := u.client(addrPort(known.LocalAddr()), time.Now())
	done := make(chan error, 1)
	go func() { done <- u.serve() }()
	largest := bytes.Repeat([]byte{7}, wire.MaxDatagram)
	for _, b := range [][]byte{[]byte("before"), largest, {}} {
		if _, err := known.Write(b); err != nil {
			t.Fatal(err)
		}
		if got := <-to.sent; !bytes.Equal(got, b) {
			t.Errorf("%d bytes came of %d", len(got), len(b))
		}
	}
	u.drain()
	if s := u.states()[0]; s.Listening || s.Error != errStopping.Error() {
		t.Errorf("state %+v", s)
	}
	late.Write([]byte("too late"))
	known.Write([]byte("one more"))
	if got := <-to.sent; string(got) != "one more" {
		t.Errorf("got %q", got)
	}
	if u.accepted.Load() != 0 || u.dropped.Load() != 1 {
		t.Errorf("%d new clients, %d datagrams dropped", u.accepted.Load(), u.dropped.Load())
	}
	c.Datagram(largest)
	buf := make([]byte, wire.MaxDatagram+1)
	if n, err := known.Read(buf); err != nil || !bytes.Equal(buf[:n], largest) {
		t.Errorf("answer of %d bytes, %v", n, err)
	}
	select {
	case err := <-done:
		t.Fatalf("ended with a client there: %v", err)
	default:
	}
	c.Ended(nil)
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestUnreachableTargetIsTriedAgainAtOnce: what ended a flow keeps no later
// datagram of its client back.
func TestUnreachableTargetIsTriedAgainAtOnce(t *testing.T) {
	u := testUDP(t, "udp://10.0.0.5:53")
	c, _ := u.client(source(1), time.Now())
	c.Ended(fmt.Errorf("the exit said: %w", errors.New("refused")))
	u.datagram(time.Now(), source(1), []byte("again"), nil)
	u.entry.tasks.Wait() // no tunnel: the new flow has ended
	if got := u.accepted.Load(); got != 1 {
		t.Errorf("%d flows were begun, want a new one", got)
	}
}
