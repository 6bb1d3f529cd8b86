//go:build unix

package command

import "syscall"

func privateFiles() { syscall.Umask(0o077) }
