package carrier

import (
	"net"

	"golang.org/x/sys/unix"
)

const (
	// manyTimeouts is how often in a row TCP must have timed out over the same
	// segment for it to be stuck: once is a loss.
	manyTimeouts = 2
	// freshData is how many milliseconds ago the peer must have been heard to be
	// there now.
	freshData = 500
)

// segments asks the kernel what became of the connection's segments.
func segments(conn net.Conn) (s segmentCount) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return s
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return // a kernel that does not tell
		}
		s.sent, s.again = uint64(info.Segs_out), uint64(info.Total_retrans)
		unanswered := info.Bytes_sent - info.Bytes_retrans - info.Bytes_acked
		s.stuck = info.Retransmits >= manyTimeouts && info.Unacked > 0 && int64(unanswered) >= int64(info.Snd_mss) &&
			(info.Sacked > 0 || info.Last_data_recv <= freshData)
	})
	return s
}
