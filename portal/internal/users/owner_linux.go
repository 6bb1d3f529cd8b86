package users

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Supported says whether this system tells who connects.
const Supported = true

// owner returns the user at the other end of a connection.
func owner(c net.Conn) (uint32, error) {
	switch c := c.(type) {
	case *net.UnixConn:
		return peerOf(c)
	case *net.TCPConn:
		// The other end is a socket of this machine, seen from there.
		return lookUp(c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort())
	}
	return 0, fmt.Errorf("it is a %T", c)
}

func peerOf(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return cred.Uid, nil
}

// told looks a TCP listener up as its clients will be. Kernels without tcp_diag find
// nothing.
func told(l net.Listener) error {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil // a Unix socket: SO_PEERCRED is always there
	}
	here := a.AddrPort()
	any := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if !here.Addr().Unmap().Is4() {
		any = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	if _, err := ask(here, any); err != nil {
		return fmt.Errorf("%w (modprobe tcp_diag)", err)
	}
	return nil
}

// lookUp returns the user of the connected TCP socket of this machine, in this network
// namespace, that has these ends.
func lookUp(local, remote netip.AddrPort) (uint32, error) {
	s, err := ask(local, remote)
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, errors.New("it is not from this machine")
	case err != nil:
		return 0, err
	case !connected(s.state) || s.local != local.Port() || s.remote != remote.Port():
		// Where no socket has both ends the kernel answers with one that listens
		// at the first.
		return 0, errors.New("it is not from this machine")
	case s.inode == 0 && s.uid == 0:
		// What was closed belongs to nobody, of which some kernels make root.
		return 0, errors.New("the client has closed its socket already")
	}
	return s.uid, nil
}

// The states of a connection whose client is connected, from linux/tcp_states.h.
func connected(state uint8) bool {
	const established, finWait1, finWait2, closeWait = 1, 4, 5, 8
	return state == established || state == finWait1 || state == finWait2 || state == closeWait
}

// socket is what the kernel tells of one.
type socket struct {
	state         uint8
	local, remote uint16 // ports
	uid, inode    uint32
}

const (
	requestLen = unix.SizeofNlMsghdr + 56 // with struct inet_diag_req_v2
	answerLen  = unix.SizeofNlMsghdr + 72 // with struct inet_diag_msg
	// askTime bounds the wait for the kernel, which answers at once.
	askTime = time.Second
)

// ask has the kernel look up a TCP socket (sock_diag(7)), which anybody may.
func ask(local, remote netip.AddrPort) (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return socket{}, fmt.Errorf("open a sock_diag socket: %w", err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(askTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return socket{}, err
	}
	if err := unix.Sendto(fd, request(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return socket{}, fmt.Errorf("ask sock_diag: %w", err)
	}
	var b [1024]byte
	n, from, err := unix.Recvfrom(fd, b[:], 0)
	if err != nil {
		return socket{}, fmt.Errorf("ask sock_diag: %w", err)
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return socket{}, errors.New("ask sock_diag: somebody else answered")
	}
	return answer(b[:n])
}

func request(local, remote netip.AddrPort) []byte {
	src, dst := local.Addr().Unmap(), remote.Addr().Unmap()
	family := uint8(unix.AF_INET6)
	if src.Is4() {
		family = unix.AF_INET
	}
	b := make([]byte, 0, requestLen)
	b = binary.NativeEndian.AppendUint32(b, requestLen)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and port
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // all states
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	b = append(append(b, src.AsSlice()...), make([]byte, 16-src.BitLen()/8)...)
	b = append(append(b, dst.AsSlice()...), make([]byte, 16-dst.BitLen()/8)...)
	b = binary.NativeEndian.AppendUint32(b, zone(src))
	for range 2 {
		b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // INET_DIAG_NOCOOKIE
	}
	return b
}

// zone returns the number of the interface that a link-local address is of.
func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}

func answer(b []byte) (socket, error) {
	if len(b) < unix.SizeofNlMsghdr+4 {
		return socket{}, fmt.Errorf("ask sock_diag: an answer of %d bytes", len(b))
	}
	kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if kind == unix.NLMSG_ERROR {
		return socket{}, fmt.Errorf("ask sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
	}
	if kind != unix.SOCK_DIAG_BY_FAMILY || len(b) < answerLen {
		return socket{}, fmt.Errorf("ask sock_diag: an answer of type %d, %d bytes", kind, len(b))
	}
	return socket{
		state: body[1], local: binary.BigEndian.Uint16(body[4:]), remote: binary.BigEndian.Uint16(body[6:]),
		uid: binary.NativeEndian.Uint32(body[64:]), inode: binary.NativeEndian.Uint32(body[68:]),
	}, nil
}
