package local

import "golang.org/x/sys/unix"

// callerOf returns the user id of whoever connected to a socket.
func callerOf(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
