package packet

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// setOptions sets what quic-go sets once, at the socket that it is given, so
// that a socket that takes its place has it too: packets are never cut on their
// way (RFC 9000 section 14), and how they were marked is told (ECN).
func setOptions(network string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		if network == "udp6" {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
			return
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	})
}
