package overquic

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

func init() {
	// quic-go would write to standard error, past the log, where a socket's buffers are
	// smaller than it likes. What goes here needs none.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
}

const (
	// KeepAlive is how often the side that has dialled has something sent where nothing else
	// is: NATs forget UDP after as little as 30 s. It costs 0.4 MB a day, both ways.
	KeepAlive = 25 * time.Second
	// idleTime is after which silence a connection is given up: a sign of life was lost, with all its
	// repetitions, and another. So long it takes to notice that the other side is gone without a word
	// where there is nothing to say to it.
	idleTime = 2 * KeepAlive
	// shakeTime bounds a handshake, and half of it a silence of the other side in it.
	shakeTime = 10 * time.Second
	// lingerTime is how long Close waits, out of sight, for what was written to arrive.
	lingerTime = 2 * time.Second
	// window is how much a peer may have sent that was not read, in bytes, to begin with, and
	// maxWindow at most. A policy of an operator may have 64 MiB.
	window, maxWindow = 32 << 10, 1 << 20
)

// config returns the configuration of both sides.
func config() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: shakeTime / 2, MaxIdleTimeout: idleTime,
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: maxWindow,
		InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: maxWindow,
		MaxIncomingStreams: 1, MaxIncomingUniStreams: -1, RequireStreamCreditRelease: true,
		InitialPacketSize: 1200, DisablePathMTUDiscovery: true, // little is sent; larger packets would have to be sought again and again
	}
}

// Conn is one stream. It is a net.Conn; Read and Write may each be called by one goroutine at a
// time, the other methods by any.
type Conn struct {
	quic   *quic.Conn
	stream *quic.Stream
	free   func()        // of what is below, once the QUIC connection is closed
	gone   chan struct{} // closed when it is, and free was called

	closed atomic.Bool

	reading sync.Mutex // held in Read; guards the following
	first   [1]byte    // was awaited
	here    bool       // first is not read yet

	writing sync.Mutex // held in Write

	deadlines sync.Mutex // held where deadlines are set, and where closed is
}

func newConn(q *quic.Conn, stream *quic.Stream, free func()) *Conn {
	return &Conn{quic: q, stream: stream, free: free, gone: make(chan struct{})}
}

// ConnectionState returns that of TLS.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.quic.ConnectionState().TLS }

// NetConn returns c: there is nothing below that could be closed alone.
func (c *Conn) NetConn() net.Conn { return c }

// LocalAddr returns this side's address, a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.quic.LocalAddr() }

// RemoteAddr returns the other side's, a *net.UDPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.quic.RemoteAddr() }

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	if c.here && len(b) > 0 {
		c.here = false
		return copy(b, c.first[:]), nil
	}
	n, err := c.stream.Read(b)
	if n > 0 && err == io.EOF {
		err = nil // the next call says it
	}
	return n, c.explain(err)
}

// Await waits until there is something for Read, and returns the error that it would return.
func (c *Conn) Await() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	for !c.here {
		if c.closed.Load() {
			return net.ErrClosed
		}
		n, err := c.stream.Read(c.first[:])
		if c.here = n > 0; !c.here && err != nil {
			return c.explain(err)
		}
	}
	return nil
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.stream.Write(b)
	return n, c.explain(err)
}

// explain is explain, but for what Close has caused.
func (c *Conn) explain(err error) error {
	if err != nil && c.closed.Load() {
		return net.ErrClosed
	}
	return explain(err)
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.stream.SetDeadline(t) })
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.stream.SetReadDeadline(t) })
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.stream.SetWriteDeadline(t) })
}

// unlessClosed sets a deadline: after Close they belong to linger.
func (c *Conn) unlessClosed(set func() error) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set()
}

// Close ends what reads and writes, and the stream behind what was written. The connection ends
// when the other side has ended its own, or after 2 seconds; see Wait.
func (c *Conn) Close() error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.closed.Swap(true) {
		return nil
	}
	past := time.Unix(1, 0)
	err := c.stream.SetDeadline(past)
	go c.linger()
	return err
}

// linger ends the connection. The goroutine that it runs in is that which Wait waits for.
func (c *Conn) linger() {
	defer close(c.gone)
	end := time.Now().Add(lingerTime)
	c.writing.Lock() // who was writing has given up
	_ = c.stream.Close()
	c.writing.Unlock()
	c.reading.Lock()
	_ = c.stream.SetReadDeadline(end)
	_, _ = io.Copy(io.Discard, c.stream)
	c.reading.Unlock()
	_ = c.quic.CloseWithError(0, "")
	c.free()
}

// Wait waits until a connection is gone for which Close was called: what was written before has
// arrived then, if it could in 2 seconds. A process that ends earlier takes it along.
func (c *Conn) Wait() { <-c.gone }

// cryptoErrors is where the numbers of TLS alerts begin in QUIC (RFC 9001 section 4.8).
const cryptoErrors = 0x100

// explain turns an error of QUIC into the one that TCP and TLS would have.
func explain(err error) error {
	if t, ok := errors.AsType[*quic.TransportError](err); ok {
		alert := t.ErrorCode >= cryptoErrors && t.ErrorCode < cryptoErrors+0x100
		switch {
		case alert && t.Remote:
			return &net.OpError{Op: "remote error", Net: "udp", Err: tls.AlertError(t.ErrorCode - cryptoErrors)}
		case alert:
			if list := t.Unwrap(); len(list) > 1 && list[1] != nil {
				return list[1] // and not that the connection was closed for it
			}
		case t.ErrorCode == quic.ConnectionRefused && t.Remote:
			return errors.New("it takes no more connections now")
		}
		return err
	}
	if a, ok := errors.AsType[*quic.ApplicationError](err); ok {
		if a.Remote {
			return io.EOF
		}
		return net.ErrClosed
	}
	if errors.As(err, new(*quic.IdleTimeoutError)) || errors.As(err, new(*quic.HandshakeTimeoutError)) {
		return errSilent
	}
	return err
}

// silentError is the end of a connection on which nothing came.
type silentError struct{}

var errSilent error = silentError{}

func (silentError) Error() string   { return "no answer over UDP" }
func (silentError) Timeout() bool   { return true }
func (silentError) Temporary() bool { return true }
func (silentError) Unwrap() error   { return os.ErrDeadlineExceeded }
