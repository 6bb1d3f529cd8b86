package daemon

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/privilege"

	"github.com/netport/netport/relay/internal/config"
)

func TestOnlyALowSharedUDPPortKeepsTheRightToOpenIt(t *testing.T) {
	for port, want := range map[uint16]privilege.Set{
		0: 0, 443: privilege.Of(unix.CAP_NET_BIND_SERVICE), 1023: privilege.Of(unix.CAP_NET_BIND_SERVICE), 1024: 0, 4433: 0,
	} {
		got := ^privilege.Set(0)
		d := &Daemon{cfg: config.Config{SharedTCP: 443, SharedUDP: port}, secure: func(keep privilege.Set) error { got = keep; return nil }}
		if err := d.dropPrivileges(); err != nil || got != want {
			t.Errorf("shared UDP port %d: keeps %b, %v; want %b", port, got, err, want)
		}
	}
}
