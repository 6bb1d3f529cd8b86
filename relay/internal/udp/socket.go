package udp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"
)

// readBuffer is what a socket may hold for us, as far as the system allows:
// bursts wait there while a reader is busy.
const readBuffer = 4 << 20

// socket is one UDP socket of the relay: of a session's own port, of the
// shared port, or of one bound leg at the shared port, connected to it.
type socket struct {
	// Constant.
	conn   *net.UDPConn
	raw    syscall.RawConn
	family int
	port   uint16
	owner  *session // nil at the shared port
	// Of a connected socket only: whom it is connected to, and the socket that
	// listens at its port.
	remote netip.AddrPort
	parent *socket

	// routes holds where packets of bound and joined legs go. Plane replaces
	// it as a whole; the reader loads it once for each batch.
	routes atomic.Pointer[[]*route]
}

// listen opens a socket at a port of an address; empty: of all addresses.
func listen(ctx context.Context, address string, port uint16, owner *session) (*socket, error) {
	var lc net.ListenConfig
	if owner == nil {
		lc.Control = shareAddress
	}
	conn, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(address, fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	return newSocket(conn.(*net.UDPConn), &socket{owner: owner})
}

// connect opens a socket at the port of parent that hears remote alone.
func (parent *socket) connect(remote netip.AddrPort, owner *session) (*socket, error) {
	d := net.Dialer{LocalAddr: parent.conn.LocalAddr(), Control: shareAddress}
	conn, err := d.Dial("udp", remote.String())
	if err != nil {
		return nil, err
	}
	return newSocket(conn.(*net.UDPConn), &socket{owner: owner, remote: remote, parent: parent})
}

// shareAddress lets sockets have one port together: the kernel gives a packet
// to the one that is connected to its sender, else to the one that listens.
func shareAddress(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

// newSocket completes s with its connection, which it closes on error.
func newSocket(conn *net.UDPConn, s *socket) (*socket, error) {
	s.conn = conn
	s.port = uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	if err := s.prepare(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) prepare() error {
	var err error
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return err
	}
	s.conn.SetReadBuffer(readBuffer)
	e := s.raw.Control(func(fd uintptr) {
		if s.family, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return
		}
		// What the kernel does not have only costs speed, or the ECN bits.
		unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVTOS, 1)
		if s.family == unix.AF_INET6 {
			unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
		}
	})
	if e != nil {
		return e
	}
	return err
}

// receive waits for packets and takes what is there. A socket that waits holds
// no batch. The error is net.ErrClosed when the socket is closed.
func (s *socket) receive(from *batches) (*batch, error) {
	var b *batch
	err := s.raw.Read(func(fd uintptr) bool {
		b = from.get()
		b.receive(fd)
		if b.receiveErr == unix.EAGAIN {
			from.put(b)
			b = nil
			return false
		}
		return true
	})
	return b, err
}

// write sends one packet by the slow way: an answer, or what was held.
func (s *socket) write(packet []byte, to netip.AddrPort, ecn byte) error {
	var control []byte
	if ecn != 0 {
		control = appendECN(nil, to.Addr(), ecn)
	}
	if s.remote.IsValid() {
		to = netip.AddrPort{}
	}
	_, _, err := s.conn.WriteMsgUDPAddrPort(packet, control, to)
	return err
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
