package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

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
	var tasks sync.WaitGroup
	outcomes := make(chan outcome[T], 2)
	defer func() {
		cancel()
		tasks.Wait()
		close(outcomes)
		for o := range outcomes {
			if o.err == nil {
				o.conn.Close()
			}
		}
	}()
	tasks.Go(func() { outcomes <- overTCP(ctx, through, address, secure) })
	udp := through.Through(address) == nil
	under := 1
	var why error // of TCP
	next := time.NewTimer(udpAfter)
	defer next.Stop()
	for {
		select {
		case o := <-outcomes:
			under--
			switch {
			case o.err == nil:
				return o.conn, o.with, nil
			case !o.udp:
				why = o.err
			case why != nil:
				why = fmt.Errorf("%w (over UDP: %v)", why, o.err)
			}
			if !udp && under == 0 {
				return nil, o.with, why
			}
			next.Reset(udpAlone)
		case <-next.C:
			if !udp && why != nil {
				var none T
				return nil, none, why
			}
		}
		if udp {
			udp = false
			under++
			tasks.Go(func() {
				conn, with, err := overquic.Dial(ctx, overquic.Dialer{}, address, secure)
				outcomes <- outcome[T]{conn, with, true, err}
			})
		}
	}
}

// outcome is what came of one attempt to connect.
type outcome[T any] struct {
	conn Channel
	with T
	udp  bool
	err  error
}

// overTCP is Connect over TCP.
func overTCP[T any](ctx context.Context, through *proxy.Settings, address string, secure func() (*tls.Config, T)) outcome[T] {
	raw, err := through.DialContext(ctx, &net.Dialer{}, address)
	if err != nil {
		return outcome[T]{err: &UnreachedError{cause(err)}}
	}
	cfg, with := secure()
	conn, err := shake(ctx, raw, cfg)
	if err != nil {
		raw.Close()
		return outcome[T]{err: err}
	}
	return outcome[T]{conn: conn, with: with}
}
