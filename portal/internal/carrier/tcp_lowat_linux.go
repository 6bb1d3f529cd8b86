package carrier

import (
	"net"

	"golang.org/x/sys/unix"
)

// limitUnsent sets TCP_NOTSENT_LOWAT: how many bytes the kernel keeps of what
// it cannot send yet. Without it the kernel takes megabytes, and every stream
// waits behind them. What waits should wait in the streams, where a small write
// still overtakes a bulk stream.
func limitUnsent(conn net.Conn, limit int) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// A kernel without the option (before 3.12) is only slower to be fair.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, limit)
	})
}
