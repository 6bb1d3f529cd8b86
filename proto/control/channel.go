package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/record"
)

// Channel is a connection between two sides that have proven themselves: TLS over TCP
// (record.Conn), or a stream of QUIC (overquic.Conn) where TCP is shut.
type Channel interface {
	net.Conn
	// ConnectionState returns that of TLS.
	ConnectionState() tls.ConnectionState
	// Await waits until there is something for Read, and returns the error that it would return.
	Await() error
	// NetConn returns what ends the connection at once, and without a word, when it is closed.
	NetConn() net.Conn
}

// overUDP reports whether a connection goes over QUIC.
func overUDP(c net.Conn) bool {
	_, is := c.(*overquic.Conn)
	return is
}

// shake is the dialling side's handshake over TCP.
func shake(ctx context.Context, raw net.Conn, cfg *tls.Config) (*record.Conn, error) {
	explain := identity.Watch(cfg)
	c := record.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, explain(err)
	}
	return c, nil
}

const (
	// udpAfter is how long Connect dials TCP alone.
	udpAfter = time.Second
	// udpAlone is how long UDP is waited for when TCP has failed, and the other way round where UDP
	// was the way.
	udpAlone = 3 * time.Second
)

// UnreachedError is the error of a server to which there is no connection at all.
type UnreachedError struct{ err error }

func (e *UnreachedError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *UnreachedError) Unwrap() error { return e.err }

// Connect connects to "host:port" and proves both sides, within the time of ctx: over TCP; or over
// QUIC, where no proxy is set, and TCP has failed or has not connected within a second. For each secure makes
// a configuration, and something that goes with it; that of the connection is returned. The error is that
// of TCP, an *UnreachedError if that did not connect.
func Connect[T any](ctx context.Context, through *proxy.Settings, address string, secure func() (*tls.Config, T)) (Channel, T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ways := []bool{false}
	if through.Through(address) == nil {
		ways = append(ways, true)
	}
	var tcp, udp error
	won, err := eyeballs.Race(ctx, udpAfter, ways, func(ctx context.Context, overUDP bool) (c connected[T], err error) {
		if overUDP {
			c.conn, c.with, udp = overquic.Dial(ctx, overquic.Dialer{}, address, secure)
			return c, udp
		}
		if c.conn, c.with, tcp = dialTCP(ctx, through, address, secure); tcp != nil {
			time.AfterFunc(udpAlone, cancel)
		}
		return c, tcp
	})
	switch {
	case err == nil:
		return won.conn, won.with, nil
	case tcp == nil:
		tcp = err // it was not even begun
	case udp != nil && ctx.Err() == nil:
		tcp = fmt.Errorf("%w (over UDP: %v)", tcp, udp)
	}
	return nil, won.with, tcp
}

// connected is a connection, and what goes with its configuration.
type connected[T any] struct {
	conn Channel
	with T
}

func (c connected[T]) Close() error { return c.conn.Close() }

// dialTCP is Connect over TCP.
func dialTCP[T any](ctx context.Context, through *proxy.Settings, address string, secure func() (*tls.Config, T)) (Channel, T, error) {
	var with T
	raw, err := through.DialContext(ctx, &net.Dialer{}, address)
	if err != nil {
		return nil, with, &UnreachedError{cause(err)}
	}
	cfg, with := secure()
	conn, err := shake(ctx, raw, cfg)
	if err != nil {
		raw.Close()
		return nil, with, err
	}
	return conn, with, nil
}
