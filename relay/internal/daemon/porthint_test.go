package daemon

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// B93: whoever may not have a port below 1024 is told by what right he would, and nobody else is.
func TestPortWithoutTheRight(t *testing.T) {
	err := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	if got := portHint(443, err); !strings.Contains(got, "CAP_NET_BIND_SERVICE") {
		t.Errorf("of port 443 it says %q", got)
	}
	if got := portHint(3478, err); got != "" {
		t.Errorf("of port 3478 it says %q", got)
	}
}
