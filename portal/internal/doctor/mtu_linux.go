package doctor

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mtuTries is how many steps a path's MTU may take: each router on the way that has
	// less costs one.
	mtuTries = 4
	// mtuWait is how long a router has to say that a packet was too large.
	mtuWait = 400 * time.Millisecond
	udpHead = 8
)

// pathMTU returns the largest packet to a relay, in bytes, as far as routers tell: it sends
// packets that must not be cut, of zeros, which a relay drops. A router that drops what is
// too large without a word is not found out. 0: not known.
func pathMTU(ctx context.Context, to netip.AddrPort) int {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	level, discover, known, do, head := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU, unix.IP_PMTUDISC_DO, 20
	if to.Addr().Is6() {
		level, discover, known, do, head = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPV6_PMTUDISC_DO, 40
	}
	mtu := 0
	get := func() (now int) {
		raw.Control(func(fd uintptr) { now, err = unix.GetsockoptInt(int(fd), level, known) })
		return now
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, do) })
	if err != nil {
		return 0
	}
	for range mtuTries {
		if mtu = get(); mtu <= head+udpHead {
			return 0
		}
		conn.Write(make([]byte, min(mtu, 65535)-head-udpHead)) // EMSGSIZE: the system knows better by now
		conn.SetReadDeadline(time.Now().Add(mtuWait))
		stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
		conn.Read(make([]byte, 1)) // ends early with what a router said
		stop()
		if get() == mtu || ctx.Err() != nil {
			break
		}
	}
	return mtu
}
