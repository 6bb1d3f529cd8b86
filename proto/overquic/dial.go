package overquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/eyeballs"
)

const (
	// stagger is how long one address of a host is dialled alone.
	stagger = 300 * time.Millisecond
	// nameTime is how long a name may take to be looked up where its addresses are known.
	nameTime = 2 * time.Second
	// maxAddresses bounds the addresses of one host that are dialled.
	maxAddresses = 4
	// maxFaults is how many errors without a packet between them a socket may have.
	maxFaults = 1000
)

// Dialer is how names are looked up, and which addresses are dialled. The zero Dialer is ready to use.
type Dialer struct {
	Resolver *net.Resolver          // nil: the system's
	Permit   func(netip.Addr) error // says why an address is not dialled; nil: any is
	Known    []netip.Addr           // are dialled where the name cannot be looked up within 2 s
}

// Dial connects to "host:port", within the time of ctx: of a host with several addresses the next is
// dialled when one has failed, or has not answered for 300 ms. For each attempt secure makes a
// configuration, and something that goes with it; that of the connection is returned.
func Dial[T any](ctx context.Context, d Dialer, address string, secure func() (*tls.Config, T)) (*Conn, T, error) {
	var none T
	addresses, err := d.lookUp(ctx, address)
	if err != nil {
		return nil, none, err
	}
	won, err := eyeballs.Race(ctx, stagger, addresses, func(ctx context.Context, to netip.AddrPort) (dialled[T], error) {
		cfg, with := secure()
		conn, err := dial(ctx, to, cfg)
		return dialled[T]{conn, with}, err
	})
	return won.conn, won.with, err
}

// dialled is a connection, and what goes with its configuration.
type dialled[T any] struct {
	conn *Conn
	with T
}

func (d dialled[T]) Close() error { return d.conn.Close() }

// lookUp returns where an address leads.
func (d Dialer) lookUp(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	r := d.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	port, err := r.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	found, err := d.addresses(ctx, r, host)
	if err != nil {
		return nil, err
	}
	var list []netip.AddrPort
	for _, a := range found {
		a = a.Unmap()
		if d.Permit != nil {
			if err = d.Permit(a); err != nil {
				continue
			}
		}
		list = append(list, netip.AddrPortFrom(a, uint16(port)))
	}
	if len(list) == 0 {
		if err == nil {
			err = fmt.Errorf("%q has no address", host)
		}
		return nil, err
	}
	list = eyeballs.Order(list)
	return list[:min(len(list), maxAddresses)], nil
}

// addresses looks a host up.
func (d Dialer) addresses(ctx context.Context, r *net.Resolver, host string) ([]netip.Addr, error) {
	if len(d.Known) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, nameTime)
		defer cancel()
	}
	found, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil && len(d.Known) > 0 {
		return d.Known, nil
	}
	return found, err
}

// dial connects to one address.
func dial(ctx context.Context, to netip.AddrPort, cfg *tls.Config) (*Conn, error) {
	var system net.Dialer
	raw, err := system.DialContext(ctx, "udp", to.String())
	if err != nil {
		return nil, unwrap(err)
	}
	below := &socket{UDP: raw.(*net.UDPConn)}
	transport := &quic.Transport{Conn: below}
	free := func() {
		transport.Close()
		raw.Close()
	}
	c := config()
	c.KeepAlivePeriod = KeepAlive
	c.MaxIncomingStreams = -1
	q, err := transport.Dial(ctx, raw.RemoteAddr(), cfg, c)
	if err != nil {
		free()
		return nil, unwrap(explain(err))
	}
	below.up.Store(true)
	stream, err := q.OpenStream()
	if err != nil {
		_ = q.CloseWithError(0, "")
		free()
		return nil, explain(err)
	}
	return newConn(q, stream, free), nil
}

// unwrap strips what package net, and quic-go, put before errors of a socket: the caller names the address.
func unwrap(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil && op.Op != "remote error" {
		return op.Err
	}
	return err
}

// socket is the socket of one connection, which has the system tell what ICMP says of it: who dials
// hears at once that nobody listens. Once the connection stands, what cannot be sent is lost
// like any other packet, and an error that something has left behind is passed over: quic-go would give
// up what works again in a second.
type socket struct {
	UDP    *net.UDPConn // connected
	up     atomic.Bool
	faults int // owned by ReadFrom
}

// matters reports whether quic-go is to see an error.
func (s *socket) matters(err error) bool {
	return !s.up.Load() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// ReadFrom implements net.PacketConn.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, err := s.UDP.Read(b)
		if err == nil {
			s.faults = 0
			return n, s.UDP.RemoteAddr(), nil
		}
		s.faults++
		if s.matters(err) || s.faults > maxFaults {
			return 0, nil, err
		}
	}
}

// WriteTo implements net.PacketConn.
func (s *socket) WriteTo(b []byte, _ net.Addr) (int, error) {
	n, err := s.UDP.Write(b)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ECONNREFUSED) && s.up.Load() {
		n, err = s.UDP.Write(b) // what was told was of a packet before
	}
	if err != nil && !s.matters(err) {
		return len(b), nil
	}
	return n, err
}

func (s *socket) Close() error                       { return s.UDP.Close() }
func (s *socket) LocalAddr() net.Addr                { return s.UDP.LocalAddr() }
func (s *socket) SetDeadline(t time.Time) error      { return s.UDP.SetDeadline(t) }
func (s *socket) SetReadDeadline(t time.Time) error  { return s.UDP.SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.UDP.SetWriteDeadline(t) }
