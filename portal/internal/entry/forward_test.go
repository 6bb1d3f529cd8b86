package entry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// noTunnels is a Tunnels that has none.
type noTunnels struct{}

func (noTunnels) Tunnel(context.Context, string, wire.GrantID) (*tunnel.Tunnel, error) {
	return nil, &peers.Unavailable{Reason: wire.ReasonPeerOffline}
}

// exhausted is a listener of a process without descriptors, and then with one.
type exhausted struct {
	until   time.Time
	conn    net.Conn
	accepts int
	closed  chan struct{}
}

func (l *exhausted) Accept() (net.Conn, error) {
	l.accepts++
	if time.Now().Before(l.until) {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	if l.conn == nil {
		<-l.closed
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *exhausted) Close() error   { return nil }
func (l *exhausted) Addr() net.Addr { return &net.TCPAddr{} }

// newEntry returns an Entry for which every portal can be reached on any path.
func newEntry(tunnels Tunnels) *Entry {
	return New(Config{
		Tunnels: tunnels, Reach: func(string) bool { return true },
		Log: slog.New(slog.DiscardHandler),
	})
}

func testForward(t *testing.T) *forward {
	e := newEntry(noTunnels{})
	t.Cleanup(e.stop)
	return newForward(e, grant.Grant{Permission: grant.Permission{
		Forward: "web", Listen: endpoint.MustParse("tcp://127.0.0.1:1"), Target: endpoint.MustParse("tcp://127.0.0.1:1"),
		Entry: grant.Party{Name: "ann"}, Exit: grant.Party{Name: "factory"},
	}})
}

func TestAcceptWaitsWhileThereAreNoDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testForward(t)
		client, server := net.Pipe()
		l := &exhausted{until: time.Now().Add(10 * time.Second), conn: server, closed: make(chan struct{})}
		done := make(chan error)
		go func() { done <- f.serve(l) }()
		time.Sleep(10*time.Second + maxAcceptPause)
		synctest.Wait()
		if l.accepts > 40 {
			t.Errorf("asked %d times in 10 s", l.accepts)
		}
		if got := f.accepted.Load(); got != 1 {
			t.Errorf("%d connections taken half a second after descriptors came back, want 1", got)
		}
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("a connection without a tunnel is open")
		}
		close(l.closed)
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestConnectionWithoutATunnelIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := testForward(t)
	done := make(chan error)
	go func() { done <- f.serve(l) }()
	defer func() {
		l.Close()
		<-done
		f.entry.tasks.Wait()
	}()
	client, err := net.Dial("tcp", l.Addr().String())
	if err == nil {
		defer client.Close()
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = client.Read(make([]byte, 1))
	} // else it was reset before connect returned
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client gets %v, want a reset", err)
	}
}

// slowTunnels is a Tunnels that has none once it is let go.
type slowTunnels struct{ asked, let chan struct{} }

func (s slowTunnels) Tunnel(ctx context.Context, to string, id wire.GrantID) (*tunnel.Tunnel, error) {
	s.asked <- struct{}{}
	<-s.let
	return noTunnels{}.Tunnel(ctx, to, id)
}

// TestWhatWasAcceptedGoesOnWhenThePortalStops: the listener is closed at once,
// the connection lives until its tunnel is decided about.
func TestWhatWasAcceptedGoesOnWhenThePortalStops(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	s := slowTunnels{make(chan struct{}, 1000), make(chan struct{})}
	e := newEntry(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.Apply(grants.Change{Kind: grants.Begin, Grant: grant.Grant{Permission: grant.Permission{
		Forward: "web", Listen: endpoint.MustParse("tcp://" + address), Target: endpoint.MustParse("tcp://127.0.0.1:1"),
	}}})
	var client net.Conn
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for client == nil {
		if client, err = net.Dial("tcp", address); err != nil {
			client = nil
			<-tick.C
		}
	}
	defer client.Close()
	<-s.asked
	cancel()
	for err = nil; !errors.Is(err, syscall.ECONNREFUSED); <-tick.C {
		var late net.Conn
		if late, err = net.Dial("tcp", address); err == nil {
			late.Close()
		}
	}
	client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client that was there gets %v, want it to wait", err)
	}
	select {
	case <-done:
		t.Error("Run has returned with a connection open")
	default:
	}
	close(s.let)
	client.SetReadDeadline(time.Time{})
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a tunnel it gets %v, want a reset", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitState waits until the only forward is in a state.
func waitState(t *testing.T, e *Entry, ready func(State) bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		if list := e.States(); len(list) == 1 && ready(list[0]) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it says %+v", e.States())
		}
	}
}
