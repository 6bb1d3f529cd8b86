package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/supervise"
	"github.com/netport/netport/server/internal/config"
)

// ports are what the server listens on.
type ports struct {
	tcp []net.Listener
	udp []*net.UDPConn
}

// close closes them.
func (p *ports) close() {
	for _, l := range p.tcp {
		l.Close()
	}
	for _, c := range p.udp {
		c.Close()
	}
}

// listen opens the addresses of the configuration. A socket that the service manager
// has opened is taken in place of the address that names it; one that no address names
// is an error, for nobody would be served there. All or none are opened; but where the
// configuration says nothing of UDP it may be another program's.
func listen(ctx context.Context, cfg *config.Config, log *slog.Logger) (p *ports, err error) {
	handed, err := supervise.TakePorts()
	if err != nil {
		return nil, err
	}
	p = &ports{}
	defer func() {
		if err != nil {
			p.close()
			p = nil
		}
		handed.Close() // what was not taken
	}()
	for _, address := range cfg.Listen {
		l, err := listenTCP(ctx, address, handed)
		if err != nil {
			return p, err
		}
		p.tcp = append(p.tcp, l)
	}
	for _, address := range cfg.ListenUDP {
		c, err := listenUDP(ctx, address, handed)
		switch {
		case err == nil:
			p.udp = append(p.udp, c)
		case cfg.UDPNamed:
			return p, err
		default:
			log.Warn("portals whose network shuts TCP cannot connect to this port: \"listen_udp\" in the configuration chooses others, or none", "error", err)
		}
	}
	switch {
	case len(handed.TCP) > 0:
		return p, unnamed(handed.TCP[0].Addr().String(), "listen")
	case len(handed.UDP) > 0:
		return p, unnamed(handed.UDP[0].LocalAddr().String()+overUDP, "listen_udp")
	}
	return p, nil
}

// unnamed is the error of a port that the service manager has opened for nobody.
func unnamed(address, key string) error {
	return fmt.Errorf("listen on %s, which the service manager has opened: %q in the configuration does not name it; have both say the same (systemctl edit netport-server.socket)", address, key)
}

// overUDP tells a port of UDP from one of TCP.
const overUDP = " over UDP"

// listenTCP opens an address, or takes it out of handed.
func listenTCP(ctx context.Context, address string, handed *supervise.Ports) (net.Listener, error) {
	if i := slices.IndexFunc(handed.TCP, func(l *net.TCPListener) bool { return names(address, l.Addr()) }); i >= 0 {
		l := handed.TCP[i]
		handed.TCP = slices.Delete(handed.TCP, i, i+1)
		return quietListener{l}, nil
	}
	// Keepalives of the kernel would wake idle portals every 15 s; the
	// control protocol has its own.
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, listenError("tcp", address, err)
	}
	return l, nil
}

// listenUDP is listenTCP for UDP.
func listenUDP(ctx context.Context, address string, handed *supervise.Ports) (*net.UDPConn, error) {
	if i := slices.IndexFunc(handed.UDP, func(c *net.UDPConn) bool { return names(address, c.LocalAddr()) }); i >= 0 {
		c := handed.UDP[i]
		handed.UDP = slices.Delete(handed.UDP, i, i+1)
		return c, nil
	}
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, listenError("udp", address, err)
	}
	return c.(*net.UDPConn), nil
}

// listenError says what to do about an address that cannot be had.
func listenError(network, address string, err error) error {
	key := "listen"
	if network == "udp" {
		key, address = "listen_udp", address+overUDP
	}
	hint := fmt.Sprintf("name an address of this machine in %q", key)
	switch {
	case isInUse(err):
		hint = fmt.Sprintf("another program has it; stop that, or choose another port in %q", key)
	case isDenied(err):
		hint = "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	return fmt.Errorf("listen on %s: %w: %s", address, err, hint)
}

// names reports whether an address of the configuration is that of a socket.
func names(address string, socket net.Addr) bool {
	host, port, err := config.SplitAddress(address)
	at, ok := socket.(interface{ AddrPort() netip.AddrPort }) // TCP's or UDP's
	if err != nil || !ok || port != int(at.AddrPort().Port()) {
		return false
	}
	ip := at.AddrPort().Addr().Unmap()
	if host == "" {
		return ip.IsUnspecified()
	}
	named, err := netip.ParseAddr(host)
	return err == nil && named.Unmap() == ip
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
