package exit

import (
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// wantErrors has a UDP socket told of every ICMP error: without it a connected
// socket learns only that nobody listens (ip(7), IP_RECVERR).
func wantErrors(fd uintptr, network string) {
	switch {
	case strings.HasSuffix(network, "4"):
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	case strings.HasSuffix(network, "6"):
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
}

// forgetErrors empties the queue of what the errors were about, which would
// take room from datagrams.
func forgetErrors(conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		var about [1]byte
		for err == nil {
			_, _, _, _, err = unix.Recvmsg(int(fd), about[:], nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		}
	})
}
