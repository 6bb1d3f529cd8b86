// Package rawip sends what the relay's user space has to say in IP packets of its
// own making: the answers of packet mode's handshake, packets that the kernel
// program handed over to be sent on, and ICMP errors in its name. It owns the
// raw sockets. All about the bytes is in package packet.
//
// The sockets are opened once, with CAP_NET_RAW, and need no capability after
// that. They only send. Nothing here waits: what the system does not take at once
// is dropped and counted, as a packet may be.
//
// The packets pass the host's own firewall on its output chain. A rule there
// that drops what conntrack calls invalid stops them, since conntrack has never
// seen the packets that they answer.
package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

const (
	// anyMTU is how long a packet may be that is sent without a look at the
	// route: every IPv6 link carries it, and IPv4 links hardly carry less.
	anyMTU = 1280
	// sendBuffer is what is asked for so that the packets of several joined ones
	// fit in; the system may give less.
	sendBuffer = 1 << 20
)

// Sender sends IP packets. Its methods may be called from several goroutines.
type Sender struct {
	drops  *drop.Counters
	v4, v6 int // sockets; v6 is -1 where the system has no IPv6

	mu     sync.Mutex // guards the following
	closed bool
	to4    unix.SockaddrInet4
	to6    unix.SockaddrInet6
	room   []byte
	cutter packet.Segmenter
	tooBig limiter
}

// Open opens the sockets. It needs CAP_NET_RAW. What cannot be sent is counted
// in drops.
func Open(drops *drop.Counters) (*Sender, error) {
	s := &Sender{drops: drops, v6: -1, tooBig: newLimiter()}
	var err error
	if s.v4, err = open(unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL); err != nil {
		return nil, fmt.Errorf("open a raw IPv4 socket: %w", explain(err))
	}
	s.v6, err = open(unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		unix.Close(s.v4)
		return nil, fmt.Errorf("open a raw IPv6 socket: %w", explain(err))
	}
	return s, nil
}

func open(family, level, included int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, level, included, 1); err != nil {
		unix.Close(fd)
		return -1, err
	}
	// Less of either is no reason to do without.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	return fd, nil
}

func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: the relay needs CAP_NET_RAW for packet mode", err)
	}
	return err
}

// Close closes the sockets. What is sent afterwards is dropped.
func (s *Sender) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := unix.Close(s.v4)
	if s.v6 >= 0 {
		err = errors.Join(err, unix.Close(s.v6))
	}
	return err
}

// Send sends an IP packet as it is, but that the system completes an IPv4
// header's checksum, and its identification if that is 0.
func (s *Sender) Send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(s.sendLocked(b))
}

// Forward rewrites a packet of one leg for the other, see packet.Rewrite, and
// sends it there. TCP packets that are too long for the link, or for segments of
// mss bytes with their options (0: not known), are cut: they were joined by
// somebody's offload. Of others that are too long their source is told. It does
// not change b.
func (s *Sender) Forward(b []byte, to bpf.Leg, mss uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = append(s.room[:0], b...)
	q, why := packet.Rewrite(s.room, netip.AddrPortFrom(to.Local, to.Port), to.Remote)
	if why != drop.None {
		s.drops.Add(why)
		return
	}
	mtu := 0
	if len(q) > anyMTU {
		mtu = mtuBetween(to.Local, to.Remote.Addr())
	}
	limit, fits := packet.PayloadLimit(q, mtu, int(mss))
	if fits && mtu > 0 && len(q) > mtu {
		s.tooBigLocked(b, mtu)
		return
	}
	if fits {
		s.count(s.sendLocked(q))
		return
	}
	pieces, why := s.cutter.Cut(q, limit)
	if why != drop.None {
		s.drops.Add(why)
		return
	}
	for piece := range pieces {
		s.count(s.sendLocked(piece))
	}
}

// TooBig tells the source of a packet that it is longer than the link to its
// receiver takes, see packet.AppendTooBig. An address hears it at most 50 times
// a second (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f); what is beyond
// that is not sent and no drop.
func (s *Sender) TooBig(b []byte, mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tooBigLocked(b, mtu)
}

func (s *Sender) tooBigLocked(b []byte, mtu int) {
	p, ok := packet.ParseIP(b)
	if !ok {
		return
	}
	if !s.tooBig.allow(time.Now(), p.Source) {
		return
	}
	if s.room, ok = packet.AppendTooBig(s.room[:0], b, mtu); ok {
		s.count(s.sendLocked(s.room))
	}
}

func (s *Sender) count(err error) {
	if err != nil {
		s.drops.Add(drop.SendFailed)
	}
}

// sendLocked sends a packet. The system is told its source beside it: routes may
// depend on that, and it does not look into the header for them.
func (s *Sender) sendLocked(b []byte) error {
	p, ok := packet.ParseIP(b)
	switch {
	case !ok:
		return unix.EINVAL
	case s.closed:
		return unix.EBADF
	case p.Dest.Is4():
		s.to4.Addr = p.Dest.As4()
		from := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: p.Source.As4()})
		_, err := unix.SendmsgN(s.v4, p.Bytes, from, &s.to4, unix.MSG_DONTWAIT)
		return err
	case s.v6 < 0:
		return unix.EAFNOSUPPORT
	}
	s.to6.Addr = p.Dest.As16()
	from := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: p.Source.As16()})
	_, err := unix.SendmsgN(s.v6, p.Bytes, from, &s.to6, unix.MSG_DONTWAIT)
	return err
}
