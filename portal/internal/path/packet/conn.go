package packet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// bufferSize is what a socket's buffers are to be, in bytes, as far as the
	// system allows: quic-go wants as much.
	bufferSize = 7 << 20
	// maxFailing is how long a socket may fail to send anything before it is
	// replaced, and pause how long to wait between two replacements.
	maxFailing = 5 * time.Second
	pause      = time.Second
)

// conn is a UDP socket as quic-go takes one without losing GSO, ECN and batched
// reads (quic.OOBCapablePacketConn, with a ReadBatch of its own). It differs
// from *net.UDPConn in this:
//
//   - What comes in goes through sift first; only what that lets pass is read.
//   - A packet that cannot be sent is a lost packet. quic-go would give the
//     connection up, though the interface may be back in a second.
//   - When the socket itself is broken another takes its place, at the same
//     local port if that can be had; quic-go does not notice.
//   - LocalAddr is not the wildcard address that the socket is bound to. By that
//     quic-go would know that it should answer from the address that it was
//     reached at, and would stick to it when the machine has moved on. As it is,
//     the system chooses the source of every packet.
type conn struct {
	network string // "udp4" or "udp6"
	log     *slog.Logger
	sift    func(from netip.AddrPort, packet []byte) (pass bool)
	wrote   func(to netip.AddrPort)
	moved   func() // after another socket has taken the place of one

	socket atomic.Pointer[socket]
	lost   atomic.Uint64 // packets that could not be sent
	failed atomic.Int64  // Unix time in ns since when none could be sent; 0: the last one was

	mu       sync.Mutex // guards the following, and the change of socket
	closed   bool
	replaced time.Time
	done     chan struct{} // closed with closed
}

// socket is what the system gives.
type socket struct {
	*net.UDPConn
	batch *ipv4.PacketConn // of either IP version, whatever its name says
}

// listen opens the first socket.
func (c *conn) listen() error {
	s, err := c.open(0)
	if err != nil {
		return err
	}
	c.socket.Store(s)
	return nil
}

func (c *conn) open(port uint16) (*socket, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if err := refuseBroadcast(raw); err != nil {
			return err
		}
		return setOptions(c.network, raw)
	}}
	host := netip.IPv4Unspecified()
	if c.network == "udp6" {
		host = netip.IPv6Unspecified()
	}
	p, err := config.ListenPacket(context.Background(), c.network, netip.AddrPortFrom(host, port).String())
	if err != nil {
		return nil, err
	}
	udp := p.(*net.UDPConn)
	// What is granted is what there is.
	_ = udp.SetReadBuffer(bufferSize)
	_ = udp.SetWriteBuffer(bufferSize)
	return &socket{udp, ipv4.NewPacketConn(udp)}, nil
}

// replace opens another socket in the place of a broken one. It returns an
// error only when c is closed.
func (c *conn) replace(broken *socket, why error) error {
	done, err := c.replaceOnce(broken, why)
	if done {
		c.moved()
	}
	return err
}

func (c *conn) replaceOnce(broken *socket, why error) (done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, net.ErrClosed
	}
	if c.socket.Load() != broken {
		return false, nil
	}
	port := broken.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	broken.Close()
	c.replaced = time.Now()
	s, err := c.open(port)
	if err != nil {
		s, err = c.open(0)
	}
	if err != nil {
		c.log.Warn("UDP socket is broken and cannot be replaced; trying again", "reason", why, "error", err)
		return false, nil
	}
	c.log.Info("UDP socket replaced", "reason", why)
	c.failed.Store(0)
	c.socket.Store(s)
	return true, nil
}

// broken replaces a socket that a read has found broken, after a pause if that
// has just been done.
func (c *conn) broken(s *socket, why error) error {
	c.mu.Lock()
	wait := time.Until(c.replaced.Add(pause))
	c.mu.Unlock()
	if wait > 0 && c.socket.Load() == s {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.done:
			return net.ErrClosed
		}
	}
	return c.replace(s, why)
}

// readFailed decides about an error of a read: nil means to read again.
func (c *conn) readFailed(s *socket, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // quic-go closes its transport
		return err
	case passingRead(err):
		return nil
	}
	return c.broken(s, err)
}

// ReadBatch is what quic-go reads with on Unix systems.
func (c *conn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		s := c.socket.Load()
		n, err := s.batch.ReadBatch(ms, flags)
		if err != nil {
			if err := c.readFailed(s, err); err != nil {
				return 0, err
			}
			continue
		}
		if n = c.pass(ms[:n]); n > 0 {
			return n, nil
		}
	}
}

// pass sifts messages and moves those that pass to the front. Their buffers stay
// where they are: quic-go knows them by their places.
func (c *conn) pass(ms []ipv4.Message) (kept int) {
	for i := range ms {
		m := &ms[i]
		if !c.sift(sourceOf(m.Addr), m.Buffers[0][:m.N]) {
			continue
		}
		if to := &ms[kept]; to != m {
			copy(to.Buffers[0], m.Buffers[0][:m.N])
			copy(to.OOB, m.OOB[:m.NN])
			to.N, to.NN, to.Flags, to.Addr = m.N, m.NN, m.Flags, m.Addr
		}
		kept++
	}
	return kept
}

func sourceOf(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	from := udp.AddrPort()
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// ReadFrom is what quic-go reads with elsewhere.
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		s := c.socket.Load()
		n, from, err := s.ReadFrom(b)
		if err != nil {
			if err := c.readFailed(s, err); err != nil {
				return 0, nil, err
			}
			continue
		}
		if c.sift(sourceOf(from), b[:n]) {
			return n, from, nil
		}
	}
}

// ReadMsgUDP belongs to quic-go's interface, which prefers ReadBatch.
func (c *conn) ReadMsgUDP(b, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, from, err := c.ReadFrom(b)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	return n, 0, 0, from.(*net.UDPAddr), nil
}

// WriteMsgUDP is what quic-go writes with on Unix systems.
func (c *conn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	c.wrote(sourceOf(to))
	err := c.write(func(s *socket) error {
		_, _, err := s.WriteMsgUDP(b, oob, to)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

// WriteTo is what quic-go writes with elsewhere.
func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.wrote(sourceOf(to))
	err := c.write(func(s *socket) error {
		_, err := s.WriteTo(b, to)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// send sends a packet that is not QUIC's.
func (c *conn) send(b []byte, to netip.AddrPort) {
	_ = c.write(func(s *socket) error {
		_, err := s.WriteToUDPAddrPort(b, to)
		return err
	})
}

// hint sends a packet of which nobody minds whether it can be sent: that it cannot says
// something about where it is to go, and nothing about the socket.
func (c *conn) hint(b []byte, to netip.AddrPort) {
	if _, err := c.socket.Load().WriteToUDPAddrPort(b, to); err != nil {
		c.lost.Add(1)
	}
}

// write sends a packet and returns such errors only as quic-go must see: that a
// packet is too large, that it cannot be cut by the kernel, that c is closed.
func (c *conn) write(send func(*socket) error) error {
	s := c.socket.Load()
	err := send(s)
	if err != nil && errors.Is(err, syscall.EPERM) {
		err = send(s) // the first packet of a socket may meet it (golang/go issue 63322)
	}
	if err == nil {
		if c.failed.Load() != 0 {
			c.failed.Store(0)
		}
		return nil
	}
	if forQUIC(err) {
		return err
	}
	c.lost.Add(1)
	now := time.Now().UnixNano()
	since := c.failed.Load()
	if since == 0 {
		c.failed.CompareAndSwap(0, now)
		c.log.Debug("UDP packet not sent", "error", err)
	}
	switch {
	case errors.Is(err, net.ErrClosed):
	case unreachable(err), since == 0 || time.Duration(now-since) < maxFailing:
		return nil // the network is away; another socket would do no better
	}
	return c.replace(s, err)
}

// Close ends reads and writes. quic-go's transport must have been closed.
func (c *conn) Close() error {
	c.shut()
	return c.socket.Load().Close()
}

// shut has nothing replaced any more.
func (c *conn) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
}

// LocalAddr returns the local port, at a loopback address: see conn.
func (c *conn) LocalAddr() net.Addr {
	ip := net.IPv4(127, 0, 0, 1)
	if c.network == "udp6" {
		ip = net.IPv6loopback
	}
	return &net.UDPAddr{IP: ip, Port: c.socket.Load().LocalAddr().(*net.UDPAddr).Port}
}

func (c *conn) SetDeadline(t time.Time) error      { return c.socket.Load().SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.socket.Load().SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.socket.Load().SetWriteDeadline(t) }
func (c *conn) SetReadBuffer(n int) error          { return c.socket.Load().SetReadBuffer(n) }
func (c *conn) SetWriteBuffer(n int) error         { return c.socket.Load().SetWriteBuffer(n) }
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	return c.socket.Load().SyscallConn()
}
