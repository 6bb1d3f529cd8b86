//go:build linux || darwin

package local

import "net"

// checkPeer admits callers of our own user, root, and these users.
func checkPeer(c *net.UnixConn, users ...int) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var uid int
	var cerr error
	if err := raw.Control(func(fd uintptr) { uid, cerr = callerOf(int(fd)) }); err != nil {
		return Caller{}, err
	}
	if cerr != nil {
		return Caller{}, cerr
	}
	return localCaller(uid), admit(uid, users...)
}
