// Package forge sends packets from addresses that are not the sender's, as an attacker with a careless provider can.
package forge

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/topo"
)

// Forger is a host's means to send whatever it likes. Its methods belong to the test's goroutine.
type Forger struct {
	t      testing.TB
	v4, v6 int // raw sockets
	sent   int64
}

// New makes a forger on a host.
func New(t testing.TB, host *topo.Host) *Forger {
	t.Helper()
	f := &Forger{t: t}
	open := func(family int) (fd int) {
		var err error
		host.Do(func() { fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
		if err != nil {
			t.Fatalf("%s: open a raw socket: %v", host.Name(), err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	f.v4, f.v6 = open(unix.AF_INET), open(unix.AF_INET6)
	return f
}

// Sent is how many bytes of IP packets were sent.
func (f *Forger) Sent() int64 { return f.sent }

// UDP sends a datagram.
func (f *Forger) UDP(from, to netip.AddrPort, payload []byte) {
	f.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	f.send(from, to, unix.IPPROTO_UDP, b, 6)
}

// Flags of a Segment (RFC 9293, section 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Segment is what a TCP segment says beside its ports. It has no options.
type Segment struct {
	Flags    uint8
	Seq, Ack uint32
	Payload  []byte
}

// TCP sends a segment.
func (f *Forger) TCP(from, to netip.AddrPort, s Segment) {
	f.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, 5<<4, s.Flags, 0xff, 0xff, 0, 0, 0, 0) // a header of 5 words, a window of 65,535
	f.send(from, to, unix.IPPROTO_TCP, append(b, s.Payload...), 16)
}

// send sends a transport's packet, whose checksum goes where at says.
func (f *Forger) send(from, to netip.AddrPort, protocol uint8, transport []byte, at int) {
	f.t.Helper()
	source, target := from.Addr().AsSlice(), to.Addr().AsSlice()
	pseudo := append(append([]byte(nil), source...), target...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(transport)))
	pseudo = append(pseudo, 0, 0, 0, protocol)
	sum := checksum(append(pseudo, transport...))
	if sum == 0 && protocol == unix.IPPROTO_UDP {
		sum = 0xffff // RFC 768
	}
	binary.BigEndian.PutUint16(transport[at:], sum)
	var b []byte
	var fd int
	var where unix.Sockaddr
	if to.Addr().Is4() {
		b = make([]byte, 20)
		b[0], b[8], b[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(transport)))
		copy(b[12:], source)
		copy(b[16:], target)
		fd, where = f.v4, &unix.SockaddrInet4{Addr: to.Addr().As4()} // the kernel fills in the header's checksum
	} else {
		b = make([]byte, 40)
		b[0], b[6], b[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(transport)))
		copy(b[8:], source)
		copy(b[24:], target)
		fd, where = f.v6, &unix.SockaddrInet6{Addr: to.Addr().As16()}
	}
	b = append(b, transport...)
	if err := unix.Sendto(fd, b, 0, where); err != nil {
		f.t.Fatalf("forge a packet from %v to %v: %v", from, to, err)
	}
	f.sent += int64(len(b))
}

// checksum is the Internet checksum of b (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
