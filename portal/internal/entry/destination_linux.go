package entry

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// wantDestination makes a listener on all addresses tell which of them each
// datagram came to, and returns room for what it tells. Sent back with an
// answer, the same bytes make it leave from there (ip(7) and ipv6(7), PKTINFO):
// a client takes no answer from another address.
func wantDestination(conn *net.UDPConn) []byte {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !local.IsUnspecified() {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	raw.Control(func(fd uintptr) { err = setPacketInfo(int(fd), local) })
	if err != nil {
		return nil // answers leave from where the system's routes say
	}
	return make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
}

func setPacketInfo(fd int, local netip.Addr) error {
	if local.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}
