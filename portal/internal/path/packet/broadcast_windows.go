package packet

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/windows"
)

// refuseBroadcast is described for Unix systems.
func refuseBroadcast(raw syscall.RawConn) (err error) {
	if failed := raw.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_BROADCAST, 0)
	}); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("forbid broadcasts: %w", err)
	}
	return nil
}
