package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/supervise"
	"github.com/netport/netport/server/internal/config"
)

// listen opens the addresses of the configuration. A socket that the service manager
// has opened is taken in place of the address that names it; one that no address names
// is an error, for nobody would be served there. All or none are opened.
func listen(ctx context.Context, addresses []string) (list []net.Listener, err error) {
	handed, err := supervise.Listeners()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(list)
			list = nil
		}
		for _, l := range handed { // what was not taken
			l.Close()
		}
	}()
	for _, address := range addresses {
		if i := slices.IndexFunc(handed, func(l *net.TCPListener) bool { return names(address, l.Addr()) }); i >= 0 {
			list = append(list, quietListener{handed[i]})
			handed = slices.Delete(handed, i, i+1)
			continue
		}
		// Keepalives of the kernel would wake idle portals every 15 s; the
		// control protocol has its own.
		lc := net.ListenConfig{KeepAlive: -1}
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return list, listenError(address, err)
		}
		list = append(list, l)
	}
	if len(handed) > 0 {
		return list, fmt.Errorf("listen on %s, which the service manager has opened: \"listen\" in the configuration does not name it; have both say the same (systemctl edit netport-server.socket)", handed[0].Addr())
	}
	return list, nil
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}

// names reports whether an address of the configuration is that of a socket.
func names(address string, socket net.Addr) bool {
	host, port, err := config.SplitAddress(address)
	at, ok := socket.(*net.TCPAddr)
	if err != nil || !ok || port != at.Port {
		return false
	}
	if host == "" {
		return at.IP.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap() == at.AddrPort().Addr().Unmap()
}

// quietListener is a listener of somebody else's making, on whose connections the kernel
// sends no keepalives either.
type quietListener struct{ *net.TCPListener }

func (l quietListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if err := c.SetKeepAlive(false); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
