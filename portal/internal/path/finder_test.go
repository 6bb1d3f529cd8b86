package path

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/proto/wire"
)

// connected dials one connection, as a way of TCP does, to a listener of the test.
func connected(t *testing.T, f *Finder) (conn *tcpConn, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err = f.dial(t.Context(), "relay-1", l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		far.Close()
	})
	return conn, far
}

func TestConnectionFromAnAddressThatHasGoneIsClosed(t *testing.T) {
	f := newAuthority(t).finder("ann")
	conn, far := connected(t, f)
	f.moved(network.Change{Network: true, Gone: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("another address has gone: %v", err)
	}
	f.moved(network.Change{Gone: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("its own address has gone: %v", err)
	}
}

func TestEndedConnectionsAreNotFollowedForEver(t *testing.T) {
	f := newAuthority(t).finder("ann")
	kept, _ := connected(t, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 * firstPrune {
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := f.dial(ctx, "relay-1", l.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		cancel()
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		far.Close()
	}
	eventually(t, "ended ones are forgotten", func() bool {
		runtime.GC()
		f.mu.Lock()
		f.prune = 0 // as when many more have come
		f.mu.Unlock()
		f.follow(kept.TCPConn)
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.conns) <= 2
	})
	runtime.KeepAlive(kept)
}

func TestRoundTripToARelayIsMeasured(t *testing.T) {
	f := newAuthority(t).finder("ann")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	loopback := netip.MustParseAddr("127.0.0.1")
	place := wire.RelayPlace{Name: "relay-1", Addresses: []netip.Addr{loopback}, Port: l.Addr().(*net.TCPAddr).AddrPort().Port()}
	took, err := f.Measure(t.Context(), place, loopback)
	if err != nil || took <= 0 || took > 10*time.Second {
		t.Errorf("took %v, %v", took, err)
	}
	if _, err := f.Measure(t.Context(), place, netip.MustParseAddr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("a relay that is not dialled was measured: %v", err)
	}
	l.Close()
	if _, err := f.Measure(t.Context(), place, loopback); err == nil {
		t.Error("a relay that is not there was measured")
	}
}

// A relay is heard when it takes a TCP connection or answers a UDP leg, and not when it is only spoken to.
func TestWhatIsHeardOfARelayIsTold(t *testing.T) {
	a := newAuthority(t)
	f := a.finder("ann")
	told := make(chan string, 10)
	f.Listen(func(relay string) { told <- relay })
	if _, err := f.dial(t.Context(), "relay-1", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.closedPort())); err == nil {
		t.Error("dialled a closed port")
	}
	r, silent := newUDPRelay(t, "127.0.0.1"), listenUDP(t, "127.0.0.1")
	defer silent.Close()
	bind := func(place netip.AddrPort, until func()) {
		ctx, cancel := context.WithCancel(t.Context())
		l := r.leg(f, 0, accessAt(place))
		defer l.Close()
		ended := make(chan error, 1)
		go func() {
			_, err := quicOf(l.Ways(0)).Quic(ctx, true, a.tls(0), &quic.Config{})
			ended <- err
		}()
		until()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("nobody is at the other leg: %v", err)
		}
	}
	bind(at(silent), func() {
		silent.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, _, err := silent.ReadFrom(make([]byte, 1500)); err != nil {
			t.Error(err)
		}
	})
	if len(told) > 0 {
		t.Errorf("%s was heard, which says nothing", <-told)
	}
	connected(t, f)
	if n := len(told); n != 1 || <-told != "relay-1" {
		t.Errorf("told %d times of a TCP connection", n)
	}
	bind(at(r.conns[0]), func() { eventually(t, "told of an answer over UDP", func() bool { return len(told) > 0 }) })
}
