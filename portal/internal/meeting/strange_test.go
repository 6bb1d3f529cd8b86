package meeting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestConnectionThatEndsIsNoStranger: only what was received raises suspicion, and not how a connection ended, on whichever
// side, as it does when a portal stops.
func TestConnectionThatEndsIsNoStranger(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.EOF, false},
		{io.ErrUnexpectedEOF, false},
		{io.ErrClosedPipe, false},
		{net.ErrClosed, false},
		{context.Canceled, false},
		{os.ErrDeadlineExceeded, false},
		{os.NewSyscallError("read", syscall.ECONNRESET), false},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, false},
		{&net.OpError{Op: "write", Err: net.ErrClosed}, false},
		{&net.OpError{Op: "remote error", Err: errors.New("bad certificate")}, false},
		{&net.OpError{Op: "local error", Err: errors.New("bad certificate")}, true},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, true},
		{errors.New("peer is spiffe://example.org/portal/mallory, expected factory"), true},
	} {
		if got := strange(fmt.Errorf("prove the peer of carrier 0: %w", c.err)); got != c.want {
			t.Errorf("%v (%T): %t, want %t", c.err, c.err, got, c.want)
		}
	}
}
