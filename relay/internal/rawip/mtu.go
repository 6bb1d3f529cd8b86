package rawip

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// MTU returns how long an IP packet may be that leaves towards dest whole, as the
// system's routes say and what they have learnt from ICMP; 0 if there is no
// route. It sends nothing.
func (s *Sender) MTU(dest netip.Addr) int { return mtuBetween(netip.Addr{}, dest) }

// mtuBetween is MTU for packets from a source, if that is valid.
func mtuBetween(source, dest netip.Addr) int {
	const discard = 9 // any port will do
	family, level, option := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	var from, to unix.Sockaddr
	if dest.Is4() {
		family, level, option = unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
		to = &unix.SockaddrInet4{Port: discard, Addr: dest.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: discard, Addr: dest.As16()}
	}
	switch {
	case source.Is4():
		from = &unix.SockaddrInet4{Addr: source.As4()}
	case source.Is6():
		from = &unix.SockaddrInet6{Addr: source.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if from != nil {
		if err := unix.Bind(fd, from); err != nil {
			return 0
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		return 0
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0
	}
	return mtu
}
