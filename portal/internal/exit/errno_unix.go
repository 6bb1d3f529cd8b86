//go:build !windows

package exit

import "syscall"

// What the system says when a target cannot be reached, by its meaning.
var (
	refusedErrnos   = []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOTSOCK, syscall.EPROTOTYPE}
	timeoutErrnos   = []error{syscall.ETIMEDOUT}
	unreachedErrnos = []error{syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN}
	oversizedErrnos = []error{syscall.EMSGSIZE}
)
