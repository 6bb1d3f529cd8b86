package udp

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"
)

// readBuffer is what a socket may hold for us, as far as the system allows:
// bursts wait there while its reader is busy.
const readBuffer = 4 << 20

// socket is one UDP socket of the relay: of a session's own port, of the
// shared port, or of one bound leg at the shared port, connected to it. It is a
// bare descriptor, because a reader waits for many of them at once.
type socket struct {
	// Constant.
	family  int
	address netip.Addr // that it is bound to; an unspecified one stands for all of the machine's
	port    uint16
	owner   *session // nil at the shared port
	// Of a connected socket only: whom it is connected to, and the socket that
	// listens at its port.
	remote netip.AddrPort
	parent *socket

	remove func() // from its reader; set when it has one

	// routes holds where packets of bound and joined legs go. Plane replaces
	// it as a whole; the reader loads it once for each batch.
	routes atomic.Pointer[[]*route]

	// reading is held by the reader while it works on what the socket has
	// received.
	reading sync.Mutex

	mu sync.RWMutex // held, for reading, through every system call on fd
	fd int          // -1: closed
}

// listen opens a socket at a port of an address; the zero Addr stands for all
// addresses of the machine.
func listen(address netip.Addr, port uint16, owner *session) (*socket, error) {
	if !address.IsValid() {
		address = netip.IPv6Unspecified()
		if !hasIPv6() {
			address = netip.IPv4Unspecified()
		}
	}
	s := &socket{family: unix.AF_INET6, address: address, port: port, owner: owner}
	if address.Is4() {
		s.family = unix.AF_INET
	}
	return s, s.open(owner == nil)
}

// hasIPv6 reports whether the machine has IPv6 at all.
var hasIPv6 = sync.OnceValue(func() bool {
	s := &socket{family: unix.AF_INET6, address: netip.IPv6Unspecified()}
	if s.open(false) != nil {
		return false
	}
	s.close()
	return true
})

// connect opens a socket for one leg at the port of parent, which hears that
// leg alone: the kernel gives a packet to the socket that is connected to its
// sender, else to the one that listens.
func (parent *socket) connect(l bpf.Leg, owner *session) (*socket, error) {
	s := &socket{family: parent.family, address: parent.address, port: parent.port, owner: owner, remote: l.Remote, parent: parent}
	if parent.everywhere() && l.Local.IsValid() {
		s.address = l.Local // the kernel would choose one, and maybe not this
	}
	if err := s.open(true); err != nil {
		return nil, err
	}
	if err := unix.Connect(s.fd, sockaddr(s.remote, s.family)); err != nil {
		s.close()
		return nil, fmt.Errorf("connect a UDP socket to %v: %w", s.remote, err)
	}
	return s, nil
}

// everywhere reports whether the socket is bound to all addresses of the
// machine. Then each packet says which of them it came to, and is to say which
// it leaves from.
func (s *socket) everywhere() bool { return s.address.IsUnspecified() }

// heardAt returns the relay's address that a packet came to, of which the
// kernel has said what it was asked.
func (s *socket) heardAt(m meta) netip.Addr {
	if s.everywhere() {
		return m.local
	}
	return s.address
}

// open makes the descriptor and binds it. Only the shared port is one that
// several sockets have together; SO_REUSEPORT keeps the sockets of other users
// out of it.
func (s *socket) open(shared bool) (err error) {
	s.fd, err = unix.Socket(s.family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.fd = -1
		return os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.setOptions(shared); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	at := netip.AddrPortFrom(s.address, s.port)
	if err := unix.Bind(s.fd, sockaddr(at, s.family)); err != nil {
		return fmt.Errorf("open UDP port %v: %w", at, err)
	}
	if s.port == 0 {
		s.port, err = s.chosenPort()
	}
	return err
}

func (s *socket) setOptions(shared bool) error {
	set := func(level, option, value int) error { return unix.SetsockoptInt(s.fd, level, option, value) }
	if shared {
		if err := set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if s.family == unix.AF_INET6 {
		only := 1
		if s.everywhere() || s.address.Is4() {
			only = 0 // IPv4 too
		}
		if err := set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
		set(unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
	}
	if s.everywhere() {
		var err error
		if s.family == unix.AF_INET6 {
			err = set(unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1) // tells IPv4 addresses too
		} else {
			err = set(unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
		if err != nil {
			return err
		}
	}
	// What the kernel does not have only costs speed, or the ECN bits.
	set(unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer)
	set(unix.SOL_UDP, unix.UDP_GRO, 1)
	set(unix.SOL_IP, unix.IP_RECVTOS, 1)
	// Don't fragment, whatever the kernel has heard of the path: what a portal sends
	// to find out how long packets may be must not arrive in pieces. Without
	// this, what leaves in one message with others (UDP_SEGMENT) may be cut on
	// the way.
	set(unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	set(unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	return nil
}

// chosenPort returns the port that the system has chosen.
func (s *socket) chosenPort() (uint16, error) {
	switch sa, err := unix.Getsockname(s.fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	default:
		return 0, os.NewSyscallError("getsockname", err)
	}
}

// close closes the socket. Its reader may still work on what it received;
// settle waits for that.
func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// settle waits until the reader is done with a closed socket. The reader
// itself must not call it.
func (s *socket) settle() {
	s.reading.Lock()
	defer s.reading.Unlock()
}

// receive takes what the socket has into b.
func (s *socket) receive(b *batch) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b.receive(s.fd)
}

// send sends messages of b and returns how many went and why not more did. It is
// unix.EBADF where the socket was closed.
func (s *socket) send(b *batch, from, to int) (sent int, failed unix.Errno) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sent, failed = b.send(s.fd, from, to); s.ofEarlier(failed) {
		return b.send(s.fd, from, to)
	}
	return sent, failed
}

// write sends one packet from one of the relay's addresses by the slow way: an
// answer, or what was held. The error is unix.EBADF where the socket was closed.
func (s *socket) write(packet []byte, from netip.Addr, to netip.AddrPort, ecn byte) error {
	control := s.source(from)
	if ecn != 0 {
		control = appendECN(control, to.Addr(), ecn)
	}
	var name unix.Sockaddr
	if !s.remote.IsValid() {
		name = sockaddr(to, s.family)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	err := unix.Sendmsg(s.fd, packet, control, name, unix.MSG_DONTWAIT)
	if failed, ok := err.(unix.Errno); ok && s.ofEarlier(failed) {
		return unix.Sendmsg(s.fd, packet, control, name, unix.MSG_DONTWAIT)
	}
	return err
}

// source returns the control message that makes a packet leave from an address,
// where the socket needs one for that.
func (s *socket) source(from netip.Addr) []byte {
	if !s.everywhere() || !from.IsValid() {
		return nil
	}
	return appendSource(nil, from)
}
