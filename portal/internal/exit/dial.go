package exit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/reserve"
	"github.com/netport/netport/proto/wire"
)

// keepAlive finds a target that has vanished within two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

// dialError is a dial that failed for a known reason. told is for the peer.
type dialError struct {
	reason wire.Reason
	told   string
	err    error
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// begun is called with a new socket, right before it connects.
//
// A dial that is given up may have connected already, with nobody here having
// noticed. The target must not take the close for the end of an empty stream:
// closing the connection resets it, until the tunnel says otherwise.
func begun(ctx context.Context, network, _ string, socket syscall.RawConn) error {
	if err := reserve.CheckRaw(socket); err != nil {
		return err
	}
	var set error
	err := socket.Control(func(fd uintptr) {
		switch {
		case strings.HasPrefix(network, "tcp"):
			set = resetOnClose(fd)
		case strings.HasPrefix(network, "udp"):
			wantErrors(fd, network)
		}
	})
	if err != nil {
		return err
	}
	tunnel.Begun(ctx)
	return set
}

// dial resolves the target of g once, checks what came, and dials that.
func (x *Exit) dial(ctx context.Context, g grant.Grant) (net.Conn, error) {
	leave, err := x.dialing.enter(g.Entry.Name, g.Target.String())
	if err != nil {
		return nil, err
	}
	defer leave()
	timed, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := x.dialTarget(timed, g.Target)
	if err != nil && ctx.Err() == nil && timed.Err() != nil {
		return nil, &dialError{wire.ReasonTargetTimeout, fmt.Sprintf("no answer within %v", dialTimeout), err}
	}
	return conn, err
}

func (x *Exit) dialTarget(ctx context.Context, target endpoint.Endpoint) (net.Conn, error) {
	if target.Scheme() == endpoint.Unix {
		return x.dialer.DialContext(ctx, "unix", target.Path())
	}
	addrs, err := x.resolve(ctx, target)
	if err != nil {
		return nil, err
	}
	if target.Datagram() {
		// Connecting a UDP socket asks nobody; it fails only where there is no
		// route, and then the next address may have one.
		return eyeballs.Dial(ctx, addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			return x.dialUDP(ctx, a)
		})
	}
	return eyeballs.Dial(ctx, addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		conn, err := x.dialer.DialContext(ctx, "tcp", a.String())
		// A target on this machine does not vanish: the system ends its
		// connections. Asking would cost four system calls and a timer each.
		if tcp, ok := conn.(*net.TCPConn); ok && !a.Addr().IsLoopback() {
			tcp.SetKeepAliveConfig(keepAlive) // of one that is over already it cannot be set
			x.vanished.Add(tcp)
		}
		return conn, err
	})
}

// resolve returns the addresses of a target, all of them admitted.
func (x *Exit) resolve(ctx context.Context, target endpoint.Endpoint) ([]netip.AddrPort, error) {
	if ap, ok := target.AddrPort(); ok {
		return []netip.AddrPort{ap}, nil
	}
	addrs, err := x.Resolver.LookupNetIP(ctx, "ip", target.Host())
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: target.Host(), IsNotFound: true}
	}
	if err := x.list.Load().Answers(target, addrs); err != nil {
		return nil, err
	}
	var list []netip.AddrPort
	for _, a := range addrs {
		list = append(list, netip.AddrPortFrom(a.Unmap(), target.Port()))
	}
	return list, nil
}

// dialReason translates what the system said about a dial.
func dialReason(err error) (wire.Reason, string) {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		switch {
		case dns.IsNotFound:
			return wire.ReasonTargetUnknown, "no such name"
		case dns.IsTimeout:
			return wire.ReasonTargetUnknown, "the name server did not answer"
		}
		return wire.ReasonTargetUnknown, "the name server could not tell"
	}
	switch {
	case isAny(err, refusedErrnos):
		return wire.ReasonTargetRefused, ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isAny(err, timeoutErrnos):
		return wire.ReasonTargetTimeout, ""
	case errors.Is(err, os.ErrNotExist):
		return wire.ReasonTargetUnreached, "no such socket"
	case isAny(err, unreachedErrnos):
		return wire.ReasonTargetUnreached, ""
	}
	// Descriptors, ports, rights: whatever else the system of this machine
	// refuses by.
	return wire.ReasonTargetLocal, ""
}

func isAny(err error, list []error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
