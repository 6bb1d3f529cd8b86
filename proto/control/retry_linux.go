package control

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRetry is how long the kernel waits at most before it sends again what was not
// acknowledged. By itself it doubles the wait each time, up to two minutes: after a line
// that had lost everything for 10 s, what a tunnel waits for stood still for 3 s more.
const maxRetry = time.Second

// retrySoon sets TCP_RTO_MAX_MS. A kernel without it (before 6.15) is only slower.
func retrySoon(socket syscall.RawConn) {
	_ = socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(maxRetry.Milliseconds()))
	})
}
