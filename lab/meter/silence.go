package meter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Arrivals is what reached a socket.
type Arrivals struct {
	Datagrams int
	Bytes     int64
	First     netip.AddrPort // who sent the first
}

// Silence listens on a UDP socket that nothing should reach, and counts what does.
type Silence struct {
	conn     *net.UDPConn
	done     chan struct{}
	arrivals Arrivals // the goroutine's until done
	err      error
}

// Listen starts counting on conn, which Stop closes.
func Listen(conn *net.UDPConn) *Silence {
	s := &Silence{conn: conn, done: make(chan struct{})}
	go s.run()
	return s
}

func (s *Silence) run() {
	defer close(s.done)
	b := make([]byte, maxDatagram)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				s.err = fmt.Errorf("listen to silence: %w", err)
			}
			return
		}
		s.count(n, from)
	}
}

func (s *Silence) count(n int, from netip.AddrPort) {
	if s.arrivals.Datagrams == 0 {
		s.arrivals.First = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	s.arrivals.Datagrams++
	s.arrivals.Bytes += int64(n)
}

// Stop closes the socket and returns all that had reached it by now, what still waited in it included.
func (s *Silence) Stop() (Arrivals, error) {
	err := s.conn.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	err = errors.Join(err, s.err)
	if raw, rawErr := s.conn.SyscallConn(); rawErr != nil {
		err = errors.Join(err, rawErr)
	} else {
		err = errors.Join(err, raw.Control(s.drain))
	}
	return s.arrivals, errors.Join(err, s.conn.Close())
}

func (s *Silence) drain(fd uintptr) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return // empty
		}
		s.count(n, addrPort(from))
	}
}

func addrPort(from unix.Sockaddr) netip.AddrPort {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port))
	default:
		return netip.AddrPort{}
	}
}
