package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/probe"
)

// greetTime is how long a TCP connection may take to prove its tunnel.
const greetTime = 5 * time.Second

// door is where TCP connections of peers come in, over one IP version, and the local port
// of those that are dialled: to a NAT both are one. Who does not begin with a probe of
// a tunnel that this portal has is hung up on.
type door struct {
	listener *net.TCPListener
	port     uint16
	segments func(syscall.RawConn) error // bounds those of a socket
	unproven gate.Gate
	ctx      context.Context // of the connections that have not proven themselves
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
}

// openDoor listens, at the port of the UDP socket if it is free. segments bounds those of each
// socket, and take takes what comes.
func openDoor(of netip.Addr, port uint16, segments func(syscall.RawConn) error, take func(context.Context, *net.TCPConn)) (*door, error) {
	config := net.ListenConfig{Control: reuse, KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	network, host := "tcp4", netip.IPv4Unspecified()
	if of.Is6() {
		network, host = "tcp6", netip.IPv6Unspecified()
	}
	l, err := config.Listen(context.Background(), network, netip.AddrPortFrom(host, port).String())
	if err != nil && port != 0 {
		l, err = config.Listen(context.Background(), network, netip.AddrPortFrom(host, 0).String())
	}
	if err != nil {
		return nil, err
	}
	d := &door{listener: l.(*net.TCPListener), port: addrOf(l.Addr()).Port(), segments: segments}
	d.bound()
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.tasks.Go(func() { d.serve(take) })
	return d, nil
}

// bound has the connections that come in keep to segments of a length that passes.
func (d *door) bound() {
	if raw, err := d.listener.SyscallConn(); err == nil {
		_ = d.segments(raw) // those of the other portal are bounded by what it knows
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	at := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

func (d *door) serve(take func(context.Context, *net.TCPConn)) {
	for {
		conn, err := d.listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptor is left, or the caller has gone
			select {
			case <-time.After(100 * time.Millisecond):
			case <-d.ctx.Done():
			}
			continue
		}
		leave := d.unproven.Enter(conn)
		d.tasks.Go(func() {
			defer leave()
			take(d.ctx, conn)
		})
	}
}

// dial connects to another portal, from this door or another port. Where both dial at the same
// time there is one connection, which both have dialled.
func (d *door) dial(ctx context.Context, to netip.AddrPort, port uint16) (*net.TCPConn, error) {
	local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	if to.Addr().Is6() {
		local = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	}
	control := func(network, address string, socket syscall.RawConn) error {
		if err := d.segments(socket); err != nil {
			return err
		}
		return reuse(network, address, socket)
	}
	conn, err := (&net.Dialer{LocalAddr: local, Control: control, KeepAlive: -1}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// dialBeside is dial from a port or, if something else has that, from any.
func (d *door) dialBeside(ctx context.Context, to netip.AddrPort, port uint16) (*net.TCPConn, error) {
	conn, err := d.dial(ctx, to, port)
	if call, ok := errors.AsType[*os.SyscallError](err); ok && (call.Syscall == "bind" || errors.Is(call, syscall.EADDRNOTAVAIL)) {
		return d.dial(ctx, to, 0)
	}
	return conn, err
}

func (d *door) close() {
	d.cancel()
	d.listener.Close()
	d.tasks.Wait()
}

// door returns where TCP connections come in, open while there is a Path; nil: they
// cannot.
func (f *Finder) door(of netip.Addr) *door {
	port := uint16(0)
	if p := f.port(of); p != nil {
		port = p.Local()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.doors[of.Is6()]; d != nil {
		d.bound()
		return d
	}
	if len(f.paths) == 0 {
		return nil
	}
	d, err := openDoor(of, port, f.Paths.Segments, f.greet)
	if err != nil {
		f.Log.Debug("no direct ways over TCP", "address", of.String(), "error", err)
		return nil
	}
	f.doors[of.Is6()] = d
	return d
}

// bound has the connections that come in from now on keep to segments that pass.
func (f *Finder) bound() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.doors {
		d.bound()
	}
}

// greet takes a TCP connection from wherever. A peer's begins with a probe that asks; all
// others are closed.
func (f *Finder) greet(ctx context.Context, conn *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(greetTime))
	b := make([]byte, probe.Len)
	_, err := io.ReadFull(conn, b)
	if err == nil {
		id, _ := probe.IDOf(b)
		f.mu.Lock()
		p := f.paths[id]
		f.mu.Unlock()
		if p != nil && p.admit(conn, b) && stop() {
			p.proven(newConnection(conn, false))
			return
		}
	}
	conn.Close()
}
