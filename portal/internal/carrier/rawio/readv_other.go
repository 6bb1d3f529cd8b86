//go:build unix && !linux

package rawio

import "syscall"

// read reads once into the first buffer.
func read(fd int, into [][]byte) (int, error) { return syscall.Read(fd, into[0]) }
