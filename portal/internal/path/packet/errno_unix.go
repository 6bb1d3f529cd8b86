//go:build !windows

package packet

import (
	"errors"

	"golang.org/x/sys/unix"
)

// forQUIC reports whether quic-go has an answer to an error of a write: a packet
// above the MTU (it looks for the right size), and a device that cannot cut what
// GSO sends (it stops using it).
func forQUIC(err error) bool { return errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EIO) }

// unreachable reports whether an error says that there is no way there now.
func unreachable(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETDOWN)
}

// passingRead reports whether a read may go on after an error: one that some
// packet has left behind.
func passingRead(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || unreachable(err) || errors.Is(err, unix.EINTR)
}
