//go:build !windows

package exit

import "syscall"

// resetOnClose has the close of a socket reset its connection.
func resetOnClose(fd uintptr) error {
	return syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}
