package main

import "golang.org/x/sys/unix"

// guardMemory keeps other processes of the same user from reading the private
// key out of this one, by ptrace or a core file.
func guardMemory() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
