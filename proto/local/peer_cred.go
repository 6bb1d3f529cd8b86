//go:build linux || darwin

package local

import "net"

// checkPeer admits callers of our own user and root.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var uid int
	var cerr error
	if err := raw.Control(func(fd uintptr) { uid, cerr = callerOf(int(fd)) }); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	return admit(uid)
}
