package privilege

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// every makes a system call on every thread of the process, of which the kernel
// keeps credentials one by one. It fails with ENOTSUP in a program that is
// linked with cgo; the programs are not.
func every(trap, a, b, c uintptr) error {
	// prctl(2) wants its unused arguments to be 0.
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a, b, c, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// set makes s the effective and permitted capabilities of every thread, and
// leaves none to be inherited.
func set(s Set) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := uint32(s >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
