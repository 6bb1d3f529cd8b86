package packet

import (
	"errors"

	"golang.org/x/sys/windows"
)

// forQUIC reports whether quic-go has an answer to an error of a write: a packet
// above the MTU (it looks for the right size).
func forQUIC(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

// unreachable reports whether an error says that there is no way there now.
func unreachable(err error) bool {
	return errors.Is(err, windows.WSAENETUNREACH) || errors.Is(err, windows.WSAEHOSTUNREACH) || errors.Is(err, windows.WSAENETDOWN)
}

// passingRead reports whether a read may go on after an error: a packet was too
// long, or one sent before came to a closed port.
func passingRead(err error) bool {
	return errors.Is(err, windows.WSAEMSGSIZE) || errors.Is(err, windows.WSAECONNRESET) || unreachable(err)
}
