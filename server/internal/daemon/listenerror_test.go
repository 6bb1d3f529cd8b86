package daemon

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// B93: whoever may not have a port below 1024 is told by what right he would.
func TestPortWithoutTheRight(t *testing.T) {
	err := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	const want = "listen on 192.0.2.1:443: bind: permission denied: ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)"
	if got := listenError("tcp", "192.0.2.1:443", err).Error(); !strings.HasPrefix(got, want) {
		t.Errorf("it says %q, want %q", got, want)
	}
}
