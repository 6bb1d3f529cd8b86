package udp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is how many messages one system call receives or sends. With
	// receive offload each of them may hold many packets.
	batchLen = 64
	// bufferLen holds the longest message: a datagram, or packets of one
	// sender that the kernel has joined.
	bufferLen = 64 << 10
	// maxSegments and maxJoined bound what is handed to the kernel in one
	// message to be cut into packets (UDP_SEGMENT); the kernel's own limits.
	maxSegments = 64
	maxJoined   = 65000

	controlLen = 96 // room for a segment size, a TOS and an address
)

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// batch is what one system call receives, and what comes of it to be sent. It
// belongs to one reader. Its buffers are large but untouched unless
// packets fill them.
type batch struct {
	in       [batchLen]message
	received int
	buffers  *[batchLen][bufferLen]byte // apart, so that no collection looks through them
	pieces   [batchLen]unix.Iovec
	names    [batchLen]unix.RawSockaddrInet6 // or Inet4, by the family within
	controls [batchLen][controlLen]byte

	out      [batchLen]message
	going    [batchLen]going
	outCount int
	outIovs  [batchLen][batchLen]unix.Iovec
	outCtrl  [batchLen][controlLen]byte
}

// going describes one outgoing message.
type going struct {
	route   *route
	segment int // bytes of each packet but the last
	packets int
	bytes   int
	pieces  int
	ecn     byte
	closed  bool // its last packet is shorter: nothing can follow it
}

func newBatch() *batch {
	b := &batch{buffers: new([batchLen][bufferLen]byte)}
	for i := range b.in {
		b.pieces[i].Base = &b.buffers[i][0]
		b.pieces[i].SetLen(bufferLen)
		h := &b.in[i].header
		h.Iov = &b.pieces[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.controls[i][0]
		o := &b.out[i].header
		o.Iov = &b.outIovs[i][0]
	}
	return b
}

// receive takes what a socket has, without waiting; on an error, nothing. Of a
// connected socket, an ICMP error of its peer is an error here: it says
// nothing that the loss of a packet does not.
func (b *batch) receive(fd int) {
	for i := range b.in {
		h := &b.in[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlLen)
		h.Flags = 0
	}
	b.received = 0
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in[0])), batchLen, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == 0 {
			b.received = int(n)
		}
		return
	}
}

// source returns where message i came from.
func (b *batch) source(i int) netip.AddrPort {
	if b.names[i].Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.names[i]))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), fromNetwork(v4.Port))
	}
	v6 := &b.names[i]
	return netip.AddrPortFrom(netip.AddrFrom16(v6.Addr).Unmap(), fromNetwork(v6.Port))
}

// payload returns the bytes of message i.
func (b *batch) payload(i int) []byte { return b.buffers[i][:b.in[i].length] }

// meta is what the kernel says of a message.
type meta struct {
	segment int // size of the packets it was joined from; its own length if it is one
	ecn     byte
	local   netip.Addr // it came to, where the socket asks for that
}

// meta returns what the kernel said of message i.
func (b *batch) meta(i int) meta {
	m := meta{segment: int(b.in[i].length)}
	control := b.controls[i][:b.in[i].header.Controllen]
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(control) {
			break
		}
		value := control[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(value) >= 4:
			if size := int(*(*int32)(unsafe.Pointer(&value[0]))); size > 0 {
				m.segment = min(m.segment, size)
			}
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(value) >= 1:
			m.ecn = value[0] & ecnMask
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(value) >= 4:
			m.ecn = byte(*(*int32)(unsafe.Pointer(&value[0]))) & ecnMask
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(value) >= unix.SizeofInet4Pktinfo:
			m.local = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&value[0])).Spec_dst)
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(value) >= unix.SizeofInet6Pktinfo:
			m.local = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&value[0])).Addr).Unmap()
		}
		control = control[min(len(control), cmsgAlign(n)):]
	}
	return m
}

// add queues packets of one size, the last of which may be shorter, to go by
// route. Where the kernel can cut them, they join what goes the same way. It
// reports false when the batch is full: flush and add again.
func (b *batch) add(r *route, payload []byte, segment int, ecn byte) bool {
	packets := packetsIn(len(payload), segment)
	short := segment == 0 || len(payload)%segment != 0
	for i := b.outCount - 1; i >= 0 && i >= b.outCount-4; i-- {
		g := &b.going[i]
		if g.route != r {
			continue
		}
		// Only the latest message of a route: order within a flow is kept.
		last := len(payload) < g.segment && packets == 1 && len(payload) > 0
		if !g.closed && g.ecn == ecn && (segment == g.segment || last) &&
			g.packets+packets <= maxSegments && g.bytes+len(payload) <= maxJoined && g.segment <= int(r.maxSegment.Load()) {
			b.piece(i, payload)
			g.packets += packets
			g.closed = short || last
			return true
		}
		break
	}
	i := b.outCount
	if i == batchLen {
		return false
	}
	b.outCount++
	b.going[i] = going{route: r, segment: segment, packets: packets, ecn: ecn, closed: short}
	b.piece(i, payload)
	return true
}

func (b *batch) piece(i int, payload []byte) {
	g := &b.going[i]
	v := &b.outIovs[i][g.pieces]
	v.Base = unsafe.SliceData(payload)
	v.SetLen(len(payload))
	g.pieces++
	g.bytes += len(payload)
}

// prepare writes the headers of the outgoing messages.
func (b *batch) prepare() {
	for i := range b.outCount {
		g := &b.going[i]
		h := &b.out[i].header
		h.SetIovlen(g.pieces)
		h.Name, h.Namelen = g.route.name()
		control := append(b.outCtrl[i][:0], g.route.source...)
		if g.packets > 1 {
			control = appendSegmentSize(control, g.segment)
		}
		if g.ecn != 0 {
			control = appendECN(control, g.route.to.Remote.Addr(), g.ecn)
		}
		h.Control = nil
		if len(control) > 0 {
			h.Control = &control[0]
		}
		h.SetControllen(len(control))
		h.Flags = 0
	}
}

// send sends the outgoing messages from and to, until one fails.
func (b *batch) send(fd, from, to int) (sent int, failed unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out[from])), uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
		case 0:
			return int(n), 0
		default:
			return 0, errno
		}
	}
}
