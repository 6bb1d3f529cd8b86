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
	family int
	port   uint16
	owner  *session // nil at the shared port
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
	s := &socket{family: unix.AF_INET6, port: port, owner: owner}
	if !address.IsValid() {
		address = netip.IPv6Unspecified()
		if !hasIPv6() {
			address = netip.IPv4Unspecified()
		}
	}
	if address.Is4() {
		s.family = unix.AF_INET
	}
	return s, s.open(netip.AddrPortFrom(address, port), owner == nil)
}

// hasIPv6 reports whether the machine has IPv6 at all.
var hasIPv6 = sync.OnceValue(func() bool {
	s := &socket{family: unix.AF_INET6}
	if s.open(netip.AddrPortFrom(netip.IPv6Unspecified(), 0), false) != nil {
		return false
	}
	s.close()
	return true
})

// connect opens a socket at the port of parent that hears remote alone: the
// kernel gives a packet to the socket that is connected to its sender, else to
// the one that listens.
func (parent *socket) connect(remote netip.AddrPort, owner *session) (*socket, error) {
	local, err := parent.local()
	if err != nil {
		return nil, err
	}
	s := &socket{family: parent.family, port: parent.port, owner: owner, remote: remote, parent: parent}
	if err := s.open(local, true); err != nil {
		return nil, err
	}
	if err := unix.Connect(s.fd, sockaddr(remote, s.family)); err != nil {
		s.close()
		return nil, fmt.Errorf("connect a UDP socket to %v: %w", remote, err)
	}
	return s, nil
}

// open makes the descriptor and binds it. Only the shared port is one that
// several sockets have together; SO_REUSEPORT keeps the sockets of other users
// out of it.
func (s *socket) open(local netip.AddrPort, shared bool) (err error) {
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
	set := func(level, option, value int) error { return unix.SetsockoptInt(s.fd, level, option, value) }
	if shared {
		if err := set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if s.family == unix.AF_INET6 {
		only := 1
		if local.Addr().IsUnspecified() {
			only = 0 // IPv4 too
		}
		if err := set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		set(unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
	}
	// What the kernel does not have only costs speed, or the ECN bits.
	set(unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer)
	set(unix.SOL_UDP, unix.UDP_GRO, 1)
	set(unix.SOL_IP, unix.IP_RECVTOS, 1)
	if err := unix.Bind(s.fd, sockaddr(local, s.family)); err != nil {
		return fmt.Errorf("open UDP port %v: %w", local, err)
	}
	if s.port == 0 {
		local, err := s.local()
		if err != nil {
			return err
		}
		s.port = local.Port()
	}
	return nil
}

// local returns the address that the socket is bound to.
func (s *socket) local() (netip.AddrPort, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch sa, err := unix.Getsockname(s.fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	default:
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
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

// send sends messages of b and returns how many went and why not more did.
func (s *socket) send(b *batch, from, to int) (int, unix.Errno) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return b.send(s.fd, from, to)
}

// write sends one packet by the slow way: an answer, or what was held.
func (s *socket) write(packet []byte, to netip.AddrPort, ecn byte) error {
	var control []byte
	if ecn != 0 {
		control = appendECN(nil, to.Addr(), ecn)
	}
	var name unix.Sockaddr
	if !s.remote.IsValid() {
		name = sockaddr(to, s.family)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return unix.Sendmsg(s.fd, packet, control, name, unix.MSG_DONTWAIT)
}

// find returns the way of packets from source.
func find(routes *[]*route, source netip.AddrPort) *route {
	if routes == nil {
		return nil
	}
	for _, r := range *routes {
		if r.from.Remote == source {
			return r
		}
	}
	return nil
}

// route is one direction of a pair: where packets from a leg go.
type route struct {
	from, to bpf.Leg
	in, out  *socket
	address  []byte // raw form of to.Remote; nil: out is connected to it
	count    *traffic
	// maxSegment is the longest packet that the way has let the kernel cut out
	// of a larger message.
	maxSegment atomic.Int32
}

// traffic is bpf.Traffic, counted while it flows.
type traffic struct{ packets, bytes atomic.Uint64 }

func (t *traffic) add(packets, bytes int) {
	t.packets.Add(uint64(packets))
	t.bytes.Add(uint64(bytes))
}

func (t *traffic) load() bpf.Traffic {
	return bpf.Traffic{Packets: t.packets.Load(), Bytes: t.bytes.Load()}
}

func (r *route) name() (*byte, uint32) {
	if r.address == nil {
		return nil, 0
	}
	return &r.address[0], uint32(len(r.address))
}

func (r *route) appendECN(b []byte, ecn byte) []byte { return appendECN(b, r.to.Remote.Addr(), ecn) }
