package command

import "golang.org/x/sys/unix"

// GuardMemory keeps other processes of the same user from reading keys out of this
// one, by ptrace or a core file.
func GuardMemory() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
