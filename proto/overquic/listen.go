package overquic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

// Options are a Listener's.
type Options struct {
	// Enter is asked for each address that has shown that it is one, before anything is done
	// for it; if it reports false there is no room. It may be called from any goroutine. What it
	// returns is called when the connection is proven (Caller.Proven) or gone, at least once.
	Enter func(from net.Addr) (leave func(), ok bool)
	// Failed is told why a handshake has failed, from any goroutine.
	Failed func(from net.Addr, err error)
}

// Listener takes QUIC connections.
type Listener struct {
	socket    *net.UDPConn
	transport *quic.Transport
	quic      *quic.Listener
	callers   sync.WaitGroup // those that Accept returned, until they are gone
}

// Listen takes the connections that come to socket, which the Listener owns from then on, whatever
// it returns.
func Listen(socket *net.UDPConn, cfg *tls.Config, o Options) (*Listener, error) {
	l := &Listener{socket: socket}
	l.transport = &quic.Transport{
		Conn:                             lossy{socket},
		VerifySourceAddress:              func(net.Addr) bool { return true },
		DisableVersionNegotiationPackets: true,
		MaxTokenAge:                      time.Second, // nobody who dials here keeps the tokens of an earlier connection
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return o.knock(ctx, info)
		},
	}
	var err error
	if l.quic, err = l.transport.Listen(cfg, config()); err != nil {
		socket.Close()
		return nil, err
	}
	return l, nil
}

// knocked is who has shown where it is.
type knocked struct {
	leave func()
	taken atomic.Bool // by Accept
}

type knockedKey struct{}

var errFull = errors.New("there is no room for another connection that is not proven")

// knock lets a connection begin.
func (o Options) knock(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !info.AddrVerified {
		return nil, errFull
	}
	leave, ok := o.Enter(info.RemoteAddr)
	if !ok {
		return nil, errFull
	}
	k := &knocked{leave: leave}
	context.AfterFunc(ctx, func() {
		leave()
		if !k.taken.Load() {
			o.Failed(info.RemoteAddr, explain(context.Cause(ctx)))
		}
	})
	return context.WithValue(ctx, knockedKey{}, k), nil
}

// Addr returns where the Listener listens, a *net.UDPAddr.
func (l *Listener) Addr() net.Addr { return l.socket.LocalAddr() }

// Accept returns the next connection whose handshake is over. The caller closes it, or what Take
// has returned. It belongs to one goroutine.
func (l *Listener) Accept(ctx context.Context) (*Caller, error) {
	q, err := l.quic.Accept(ctx)
	if err != nil {
		return nil, err
	}
	k := q.Context().Value(knockedKey{}).(*knocked)
	k.taken.Store(true)
	l.callers.Add(1)
	return &Caller{quic: q, knocked: k, free: sync.OnceFunc(l.callers.Done)}, nil
}

// Close takes no more connections, waits until those that Accept has returned are closed, and closes
// the socket.
func (l *Listener) Close() error {
	l.quic.Close()
	l.callers.Wait()
	return errors.Join(l.transport.Close(), l.socket.Close())
}

// Caller is a connection whose handshake is over. It belongs to one goroutine.
type Caller struct {
	quic    *quic.Conn
	knocked *knocked
	free    func()
	taken   *Conn // nil: its stream was not taken
}

// RemoteAddr returns the address it comes from, a *net.UDPAddr.
func (c *Caller) RemoteAddr() net.Addr { return c.quic.RemoteAddr() }

// Proven says that its peer has proven itself in full.
func (c *Caller) Proven() { c.knocked.leave() }

// Take waits for the stream, which begins with the peer's first word.
func (c *Caller) Take(ctx context.Context) (*Conn, error) {
	stream, err := c.quic.AcceptStream(ctx)
	if err != nil {
		return nil, explain(err)
	}
	c.taken = newConn(c.quic, stream, c.free)
	return c.taken, nil
}

// Close closes what Take has returned, or the connection if that was not called, or failed.
func (c *Caller) Close() error {
	if c.taken != nil {
		return c.taken.Close()
	}
	err := c.quic.CloseWithError(0, "")
	c.free()
	return err
}

// lossy is a socket for which a packet that cannot be sent is a lost one: it says nothing about
// the others.
type lossy struct{ *net.UDPConn }

// WriteMsgUDP is what quic-go sends with.
func (s lossy) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	n, oobn, err := s.UDPConn.WriteMsgUDP(b, oob, to)
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EIO) { // EIO: the device cannot cut what the kernel is to (GSO)
		return n, oobn, err
	}
	return len(b), len(oob), nil
}
