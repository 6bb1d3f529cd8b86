package path

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// retrySoon sets TCP_RTO_MAX_MS: how long the kernel waits at most before it
// sends again what was not acknowledged. Without it that doubles up to two
// minutes, and a path that was broken for 10 s stands still for 3 s more. A
// kernel without the option (before 6.15) is only slower.
func retrySoon(socket syscall.RawConn, wait time.Duration) error {
	return socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(wait.Milliseconds()))
	})
}

// limitSegments sets TCP_MAXSEG: the longest segment that is sent, and that the
// other end is asked to send (RFC 9293 section 3.7.1).
func limitSegments(socket syscall.RawConn, bytes int) error {
	return socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, bytes)
	})
}

// swallowed reports whether a connection's full segments get lost, and small
// ones do not: the kernel has timed out twice in a row over what was sent first,
// and the other end has what was sent after it (RFC 2018). The error is that of a
// connection that was closed.
func swallowed(conn *net.TCPConn) (lost bool, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		lost = err == nil && info.Retransmits >= 2 && info.Sacked > 0
	})
	return lost, err
}
