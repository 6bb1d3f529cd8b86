package udp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ecnMask is the ECN field of a TOS or traffic class byte (RFC 3168).
const ecnMask = 3

// appendControl appends a control message of one native value.
func appendControl[V uint8 | uint16 | int32 | unix.Inet4Pktinfo | unix.Inet6Pktinfo](b []byte, level, kind int32, value V) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(value))))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(int(unsafe.Sizeof(value))))
	*(*V)(unsafe.Pointer(&b[at+unix.CmsgLen(0)])) = value
	return b
}

// appendSegmentSize asks the kernel to cut a message into packets.
func appendSegmentSize(b []byte, size int) []byte {
	return appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, uint16(size))
}

// appendECN sets the ECN bits of a message to an address of one IP version.
func appendECN(b []byte, to netip.Addr, ecn byte) []byte {
	if to.Is4() {
		return appendControl(b, unix.SOL_IP, unix.IP_TOS, ecn)
	}
	return appendControl(b, unix.SOL_IPV6, unix.IPV6_TCLASS, int32(ecn))
}

// appendSource makes a message leave from one of the machine's addresses.
func appendSource(b []byte, from netip.Addr) []byte {
	if from.Is4() {
		return appendControl(b, unix.SOL_IP, unix.IP_PKTINFO, unix.Inet4Pktinfo{Spec_dst: from.As4()})
	}
	return appendControl(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.Inet6Pktinfo{Addr: from.As16()})
}

// cmsgAlign is where the control message after one of n bytes begins.
func cmsgAlign(n int) int {
	const word = int(unsafe.Sizeof(uintptr(0)))
	return (n + word - 1) &^ (word - 1)
}

// appendSockaddr appends the raw form of an address for a socket of one
// family.
func appendSockaddr(b []byte, to netip.AddrPort, family int) []byte {
	if family == unix.AF_INET {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: toNetwork(to.Port()), Addr: to.Addr().Unmap().As4()}
		return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)...)
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: toNetwork(to.Port()), Addr: to.Addr().As16()}
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet6)...)
}

// sockaddr is the same for the calls of package unix.
func sockaddr(to netip.AddrPort, family int) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// toNetwork and fromNetwork turn a port from and to the byte order of a raw
// socket address, whatever that of the machine is.
func toNetwork(port uint16) uint16 {
	b := [2]byte{byte(port >> 8), byte(port)}
	return *(*uint16)(unsafe.Pointer(&b))
}

func fromNetwork(port uint16) uint16 {
	b := *(*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}
