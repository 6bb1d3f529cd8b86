//go:build unix

package main

import "syscall"

// privateFiles makes every file and socket that this process creates its
// user's alone, from the moment it exists.
func privateFiles() { syscall.Umask(0o077) }
