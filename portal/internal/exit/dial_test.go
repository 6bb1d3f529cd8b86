package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/tunnel"
)

// dialAndClose dials a target, closes the connection, and returns what the
// target reads.
func dialAndClose(t *testing.T, dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begun := 0
	ctx := tunnel.WithBegun(t.Context(), func() { begun++ })
	conn, err := dial(ctx, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if begun != 1 {
		t.Errorf("the next dial's turn came %d times, want once", begun)
	}
	target, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	_, err = target.Read(make([]byte, 1))
	return err
}

func TestDialThatIsGivenUpResetsItsTarget(t *testing.T) {
	w := newWorld(t, allow.List{}, nil)
	// A dial that was given up after the system had connected: its socket is closed by whoever dialled.
	if err := dialAndClose(t, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return w.exit.dialer.DialContext(ctx, "tcp", to.String())
	}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target reads %v, want a reset", err)
	}
}
