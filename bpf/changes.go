//go:build linux

package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// changes tells when something about the network has changed. What exactly is
// not read: one look at the whole answers every question, and so nothing is lost
// when there is more than the socket can hold.
type changes struct {
	file *os.File
	raw  syscall.RawConn
}

// openChanges opens a socket for some groups of changes, in the network namespace
// of the calling thread.
func openChanges(groups ...uint) (*changes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	address := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		address.Groups |= 1 << (g - 1)
	}
	raw, err := file.SyscallConn()
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("subscribe to changes of the network: %w", err)
	}
	return &changes{file, raw}, nil
}

// wait returns when something has changed since it returned before, or an error
// when ctx is done or nothing can be heard any more.
func (c *changes) wait(ctx context.Context) error {
	if err := c.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.file.SetReadDeadline(time.Unix(1, 0)) })()
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		changed, err := drain(int(fd))
		failed = err
		return changed || err != nil
	})
	return errors.Join(err, failed)
}

// drain empties a socket and reports whether anything was in it.
func drain(fd int) (some bool, err error) {
	var message [1]byte // the rest of it is cut off
	for {
		_, _, err := unix.Recvfrom(fd, message[:], unix.MSG_DONTWAIT)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS):
			some = true
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return some, nil
		default:
			return some, os.NewSyscallError("recvfrom", err)
		}
	}
}

func (c *changes) close() error {
	if c == nil {
		return nil
	}
	return c.file.Close()
}
