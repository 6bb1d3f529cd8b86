//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// Offsets in a frame.
const (
	atIPv4 = ethernetHeader
	atIPv6 = ethernetHeader

	atPorts4 = ethernetHeader + 20
	atPorts6 = ethernetHeader + 40
)

// oddity is a frame that must not be forwarded as it is: that of a living flow,
// changed by a function. It is left as it is, and if it is dropped, counted once.
type oddity struct {
	name     string
	protocol Protocol
	v6       bool
	change   func(p *peers, frame []byte) []byte
	drop     relayDropReason // or pass
}

const pass = relayDropReasonDROP_REASONS

func TestOddFramesAreNotForwarded(t *testing.T) {
	both(t, func(r *rig, h hook) {
		for _, o := range slices.Concat(oddEthernet, oddIPv4, oddIPv6, oddTransport) {
			p := r.join(o.protocol, o.v6)
			before := p.slotOf()
			frame := o.change(p, p.arriving(0, pattern(64)).frame())
			if o.drop == pass {
				r.wants(h, o.name, frame, passed, nil, nil)
			} else {
				r.wants(h, o.name, frame, dropped, nil, counts{o.drop: 1})
			}
			if p.slotOf() != before {
				r.Errorf("%s: the counters have moved", o.name)
			}
			r.clearFlows()
		}
	})
}

// pattern is a payload in which nothing repeats soon.
func pattern(length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + 1)
	}
	return b
}

// set16 returns a change of two bytes; in IPv4 the header's checksum stays right.
func set16(at int, value uint16) func(*peers, []byte) []byte {
	return func(_ *peers, b []byte) []byte {
		binary.BigEndian.PutUint16(b[at:], value)
		return fixed(b)
	}
}

func set8(at int, value byte) func(*peers, []byte) []byte {
	return func(_ *peers, b []byte) []byte {
		b[at] = value
		return fixed(b)
	}
}

func fixed(b []byte) []byte {
	if binary.BigEndian.Uint16(b[12:]) == typeIPv4 && b[atIPv4]>>4 == 4 {
		fixIPv4(b[atIPv4:])
	}
	return b
}

// tagged puts VLAN tags before the type.
func tagged(types ...uint16) func(*peers, []byte) []byte {
	return func(_ *peers, b []byte) []byte {
		for _, kind := range slices.Backward(types) {
			tag := binary.BigEndian.AppendUint16(nil, kind)
			b = slices.Insert(b, 12, append(tag, 0, 5)...)
		}
		return b
	}
}

// source and target give the packet another address, and right checksums.
func source(address string) func(*peers, []byte) []byte {
	return func(p *peers, _ []byte) []byte {
		s := p.arriving(0, pattern(64))
		s.from = netip.AddrPortFrom(netip.MustParseAddr(address), s.from.Port())
		return s.frame()
	}
}

func target(address string) func(*peers, []byte) []byte {
	return func(p *peers, _ []byte) []byte {
		s := p.arriving(0, pattern(64))
		s.to = netip.AddrPortFrom(netip.MustParseAddr(address), s.to.Port())
		return s.frame()
	}
}

// to and from give the packet another port.
func to(port uint16) func(*peers, []byte) []byte {
	return func(p *peers, _ []byte) []byte {
		s := p.arriving(0, pattern(64))
		s.to = netip.AddrPortFrom(s.to.Addr(), port)
		return s.frame()
	}
}

func from(port uint16) func(*peers, []byte) []byte {
	return func(p *peers, _ []byte) []byte {
		s := p.arriving(0, pattern(64))
		s.from = netip.AddrPortFrom(s.from.Addr(), port)
		return s.frame()
	}
}

var oddEthernet = []oddity{
	{"VLAN", UDP, false, tagged(0x8100), pass},
	{"VLAN IPv6", TCP, true, tagged(0x8100), pass},
	{"service VLAN", UDP, false, tagged(0x88a8), pass},
	{"two tags", UDP, false, tagged(0x88a8, 0x8100), pass},
	{"ARP", UDP, false, set16(12, 0x0806), pass},
	{"IPv4 in a frame for IPv6", UDP, false, set16(12, typeIPv6), pass},
	{"IPv6 in a frame for IPv4", UDP, true, set16(12, typeIPv4), pass},
	{"to a group", UDP, false, set8(0, 0x03), pass},
	{"to everyone", TCP, true, func(_ *peers, b []byte) []byte { copy(b, []byte{255, 255, 255, 255, 255, 255}); return b }, pass},
	{"to another host", UDP, false, func(_ *peers, b []byte) []byte { b[5] ^= 1; return b }, pass},
	{"a first fragment to another host", UDP, false, func(p *peers, b []byte) []byte {
		b[5] ^= 1
		return set16(atIPv4+6, 0x2000)(p, b)
	}, pass},
}

// withOptions puts IPv4 options behind the header.
func withOptions(options []byte) func(*peers, []byte) []byte {
	return func(_ *peers, b []byte) []byte {
		b = slices.Insert(b, atIPv4+20, options...)
		b[atIPv4] += byte(len(options) / 4)
		binary.BigEndian.PutUint16(b[atIPv4+2:], uint16(len(b)-ethernetHeader))
		return fixed(b)
	}
}

var (
	noOperation = []byte{1, 1, 1, 0}
	recordRoute = slices.Concat([]byte{7, 39, 4}, make([]byte, 37))
)

var oddIPv4 = func() (list []oddity) {
	for ihl := range byte(5) {
		list = append(list, oddity{fmt.Sprintf("IHL %d", ihl), UDP, false, set8(atIPv4, 0x40|ihl), relayDropReasonDROP_LENGTH})
	}
	for _, length := range []uint16{0, 19, 20, 27} {
		list = append(list,
			oddity{fmt.Sprintf("UDP, total length %d", length), UDP, false, set16(atIPv4+2, length), relayDropReasonDROP_LENGTH},
			oddity{fmt.Sprintf("TCP, total length %d", length), TCP, false, set16(atIPv4+2, length), relayDropReasonDROP_LENGTH})
	}
	return append(list, []oddity{
		{"IHL 4, not ours", UDP, false, func(p *peers, b []byte) []byte {
			copy(b[atIPv4+16:], []byte{10, 0, 0, 77})
			return set8(atIPv4, 0x44)(p, b)
		}, pass},
		{"IHL beyond the packet", UDP, false, set8(atIPv4, 0x4f), pass},
		{"UDP behind an option", UDP, false, withOptions(noOperation), pass},
		{"UDP behind a route", UDP, false, withOptions(recordRoute), pass},
		{"TCP behind an option", TCP, false, withOptions(noOperation), relayDropReasonDROP_OPTIONS},
		{"TCP behind a route", TCP, false, withOptions(recordRoute), relayDropReasonDROP_OPTIONS},
		{"TCP, total length without all of a header", TCP, false, set16(atIPv4+2, 39), relayDropReasonDROP_LENGTH},
		{"total length over the frame's", UDP, false, set16(atIPv4+2, 28+65), relayDropReasonDROP_LENGTH},
		{"total length far over the frame's", TCP, false, set16(atIPv4+2, 65535), relayDropReasonDROP_LENGTH},
		{"a lie that is not for us", UDP, false, func(p *peers, b []byte) []byte {
			copy(b[atIPv4+16:], []byte{10, 0, 0, 77})
			return set16(atIPv4+2, 65535)(p, b)
		}, pass},
		{"first fragment", UDP, false, set16(atIPv4+6, 0x2000), relayDropReasonDROP_FRAGMENT},
		{"first fragment of TCP", TCP, false, set16(atIPv4+6, 0x2000), relayDropReasonDROP_FRAGMENT},
		{"first fragment that must not be one", UDP, false, set16(atIPv4+6, 0x6000), relayDropReasonDROP_FRAGMENT},
		{"first fragment with 8 bytes", TCP, false, func(p *peers, b []byte) []byte {
			return set16(atIPv4+6, 0x2000)(p, set16(atIPv4+2, 28)(p, b[:atPorts4+8]))
		}, relayDropReasonDROP_FRAGMENT},
		{"first fragment with an option", UDP, false, func(p *peers, b []byte) []byte {
			return set16(atIPv4+6, 0x2000)(p, withOptions(noOperation)(p, b))
		}, relayDropReasonDROP_FRAGMENT},
		{"first fragment to another port", UDP, false, func(p *peers, b []byte) []byte {
			return set16(atIPv4+6, 0x2000)(p, to(sessionLast+1)(p, b))
		}, pass},
		{"first fragment, not ours", UDP, false, func(p *peers, b []byte) []byte {
			return set16(atIPv4+6, 0x2000)(p, target("10.0.0.77")(p, b))
		}, pass},
		{"middle fragment", UDP, false, set16(atIPv4+6, 0x2001), pass},
		{"last fragment", TCP, false, set16(atIPv4+6, 0x1fff), pass},
		{"wrong header checksum", UDP, false, func(_ *peers, b []byte) []byte { b[atIPv4+10] ^= 1; return b }, pass},
		{"TTL 0", UDP, false, set8(atIPv4+8, 0), relayDropReasonDROP_TTL},
		{"TTL 1", TCP, false, set8(atIPv4+8, 1), relayDropReasonDROP_TTL},
		{"from loopback", UDP, false, source("127.0.0.1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from loopback, TCP", TCP, false, source("127.255.255.254"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from nowhere", UDP, false, source("0.0.0.0"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from everyone", UDP, false, source("255.255.255.255"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from a group", TCP, false, source("224.0.0.1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from itself", UDP, false, source("10.0.0.1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from the relay's other address", TCP, false, source("10.0.1.1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"to another host's address", UDP, false, target("10.0.0.77"), pass},
		{"to another address of the relay", UDP, false, target("10.0.1.1"), pass},
		{"to another address of the relay, TCP", TCP, false, target("10.0.1.1"), relayDropReasonDROP_UNKNOWN_SOURCE},
		{"to a group's address", UDP, false, target("224.0.0.251"), pass},
		{"to everyone's address", UDP, false, target("255.255.255.255"), pass},
		{"GRE", UDP, false, set8(atIPv4+9, 47), pass},
		{"IP in IP", TCP, false, set8(atIPv4+9, 4), pass},
		{"SCTP", UDP, false, set8(atIPv4+9, 132), pass},
		{"ICMPv6 in IPv4", UDP, false, set8(atIPv4+9, protocolICMPv6), pass},
	}...)
}()

// extended puts extension headers between the IPv6 header and the rest: of each
// its number and its bytes, of which the first is overwritten.
type extension struct {
	number byte
	bytes  []byte
}

func extended(list ...extension) func(*peers, []byte) []byte {
	return func(_ *peers, b []byte) []byte {
		at, next := atPorts6, atIPv6+6
		for _, e := range list {
			follows := b[next]
			b[next] = e.number
			b = slices.Insert(b, at, e.bytes...)
			b[at] = follows
			next = at
			at += len(e.bytes)
		}
		binary.BigEndian.PutUint16(b[atIPv6+4:], uint16(len(b)-atPorts6))
		return b
	}
}

func chain(count int) (list []extension) {
	for range count {
		list = append(list, extension{60, []byte{0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}})
	}
	return list
}

var (
	hopByHop      = extension{0, []byte{0, 0, 1, 4, 0, 0, 0, 0}}
	routing       = extension{43, []byte{0, 0, 4, 0, 0, 0, 0, 0}}
	firstFragment = extension{44, []byte{0, 0, 0, 1, 9, 9, 9, 9}}
	onlyFragment  = extension{44, []byte{0, 0, 0, 0, 9, 9, 9, 9}}
	laterFragment = extension{44, []byte{0, 0, 0, 8, 9, 9, 9, 9}}
)

var oddIPv6 = func() (list []oddity) {
	for _, e := range [][]extension{{hopByHop}, {routing}, {hopByHop, routing}, chain(1), chain(8)} {
		name := fmt.Sprintf("%d headers from %d on", len(e), e[0].number)
		list = append(list,
			oddity{"UDP behind " + name, UDP, true, extended(e...), pass},
			oddity{"TCP behind " + name, TCP, true, extended(e...), relayDropReasonDROP_OPTIONS})
	}
	return append(list, []oddity{
		{"TCP to splice mode behind a header", TCP, true, func(p *peers, b []byte) []byte {
			return extended(hopByHop)(p, to(sessionFirst)(p, b))
		}, pass},
		{"9 headers", UDP, true, extended(chain(9)...), relayDropReasonDROP_OPTIONS},
		{"9 headers, not ours", UDP, true, func(p *peers, b []byte) []byte {
			return extended(chain(9)...)(p, target("fd00::77")(p, b))
		}, pass},
		{"a header that is cut off", TCP, true, func(p *peers, b []byte) []byte {
			return extended(extension{60, []byte{0, 255, 1, 4, 0, 0, 0, 0}})(p, b)
		}, pass},
		{"first fragment", UDP, true, extended(firstFragment), relayDropReasonDROP_FRAGMENT},
		{"first fragment of TCP", TCP, true, extended(firstFragment), relayDropReasonDROP_FRAGMENT},
		{"first fragment behind a header", TCP, true, extended(hopByHop, firstFragment), relayDropReasonDROP_FRAGMENT},
		{"only fragment", UDP, true, extended(onlyFragment), relayDropReasonDROP_FRAGMENT},
		{"later fragment", TCP, true, extended(laterFragment), pass},
		{"first fragment to another port", TCP, true, func(p *peers, b []byte) []byte {
			return extended(firstFragment)(p, to(sessionLast+1)(p, b))
		}, pass},
		{"nothing next", TCP, true, set8(atIPv6+6, 59), pass},
		{"authenticated", TCP, true, set8(atIPv6+6, 51), pass},
		{"ICMP in IPv6", UDP, true, set8(atIPv6+6, protocolICMP), pass},
		{"payload length over the frame's", UDP, true, set16(atIPv6+4, 8+65), relayDropReasonDROP_LENGTH},
		{"payload length 7", UDP, true, set16(atIPv6+4, 7), relayDropReasonDROP_LENGTH},
		{"a jumbo without the option", TCP, true, set16(atIPv6+4, 0), relayDropReasonDROP_LENGTH},
		{"TCP, payload length without all of a header", TCP, true, set16(atIPv6+4, 19), relayDropReasonDROP_LENGTH},
		{"hop limit 0", TCP, true, set8(atIPv6+7, 0), relayDropReasonDROP_TTL},
		{"hop limit 1", UDP, true, set8(atIPv6+7, 1), relayDropReasonDROP_TTL},
		{"without a checksum", UDP, true, set16(atPorts6+6, 0), relayDropReasonDROP_CHECKSUM},
		{"from loopback", UDP, true, source("::1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from nowhere", TCP, true, source("::"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from a group", UDP, true, source("ff02::1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from itself", TCP, true, source("fd00::1"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"from IPv4", UDP, true, source("::ffff:198.51.100.7"), relayDropReasonDROP_FORBIDDEN_SOURCE},
		{"to another host's address", TCP, true, target("fd00::77"), pass},
		{"to a group's address", UDP, true, target("ff02::fb"), pass},
	}...)
}()

// oddTransport are cases of TCP and UDP, and those that are no case for a flow.
var oddTransport = func() (list []oddity) {
	for _, v6 := range []bool{false, true} {
		at := atPorts4
		if v6 {
			at = atPorts6
		}
		set := func(offset int, value uint16) func(*peers, []byte) []byte {
			return func(p *peers, b []byte) []byte { return set16(at+offset, value)(p, b) }
		}
		list = append(list, []oddity{
			{"UDP length 0", UDP, v6, set(4, 0), relayDropReasonDROP_LENGTH},
			{"UDP length 7", UDP, v6, set(4, 7), relayDropReasonDROP_LENGTH},
			{"UDP length over the packet's", UDP, v6, set(4, 8+65), relayDropReasonDROP_LENGTH},
			{"UDP length 65535", UDP, v6, set(4, 65535), relayDropReasonDROP_LENGTH},
			{"TCP header of 16 bytes", TCP, v6, set8(at+12, 4<<4), relayDropReasonDROP_LENGTH},
			{"TCP header over the packet's", TCP, v6, func(p *peers, _ []byte) []byte {
				return set8(at+12, 15<<4)(p, p.arriving(0, pattern(39)).frame())
			}, relayDropReasonDROP_LENGTH},
			{"UDP to no session port", UDP, v6, to(sessionLast + 1), pass},
			{"UDP below the session ports", UDP, v6, to(sessionFirst - 1), pass},
			{"TCP to no session port", TCP, v6, to(sessionFirst - 1), pass},
			{"TCP to a session port that is no packet port", TCP, v6, to(packetFirst - 1), pass},
			{"UDP to another session's port", UDP, v6, to(21001), pass},
			{"UDP to a packet port", UDP, v6, to(packetFirst), pass},
			{"UDP from another port", UDP, v6, from(40002), pass},
			{"TCP from another port", TCP, v6, from(40002), relayDropReasonDROP_UNKNOWN_SOURCE},
			{"TCP to the last packet port", TCP, v6, to(packetLast), relayDropReasonDROP_UNKNOWN_SOURCE},
			{"a SYN of a flow", TCP, v6, set8(at+13, flagSYN), relayDropReasonDROP_UNKNOWN_SOURCE},
			{"a SYN-ACK of a flow", TCP, v6, set8(at+13, flagSYN|flagACK), relayDropReasonDROP_UNKNOWN_SOURCE},
			{"the STUN cookie", UDP, v6, func(_ *peers, b []byte) []byte {
				copy(b[at+8+4:], []byte{0x21, 0x12, 0xa4, 0x42})
				return b
			}, pass},
			{"the STUN cookie and nothing else", UDP, v6, func(p *peers, _ []byte) []byte {
				return p.arriving(0, []byte("\x00\x01\x00\x00\x21\x12\xa4\x42")).frame()
			}, pass},
		}...)
	}
	return list
}()

// TestPrefixes gives the programs every beginning of whole packets.
func TestPrefixes(t *testing.T) {
	both(t, func(r *rig, h hook) {
		for _, protocol := range []Protocol{UDP, TCP} {
			for _, v6 := range []bool{false, true} {
				p := r.join(protocol, v6)
				s := p.arriving(0, pattern(100))
				whole := s.frame()
				ports := atPorts4
				if v6 {
					ports = atPorts6
				}
				before := p.slotOf()
				first := ethernetHeader // with less the kernel runs no program
				if h.name == "tc" {
					first = ports // nor this one
				}
				for n := first; n < len(whole); n++ {
					name := fmt.Sprintf("%d bytes of %v %v", n, protocol, s.to)
					if n < ports+8 {
						r.wants(h, name, whole[:n], passed, nil, nil)
					} else {
						r.wants(h, name, whole[:n], dropped, nil, counts{relayDropReasonDROP_LENGTH: 1})
					}
				}
				if p.slotOf() != before {
					t.Error("the counters have moved")
				}
			}
		}
	})
}
