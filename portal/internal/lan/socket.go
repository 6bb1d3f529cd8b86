package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// port is that of multicast DNS, for all who speak it on a machine.
const port = 5353

var (
	group4     = net.IPv4(224, 0, 0, 251)
	group6     = net.ParseIP("ff02::fb")
	errTooMany = errors.New("too many records")
)

// maxInterfaces bounds the interfaces that are used.
const maxInterfaces = 16

// nearby is an interface with neighbours.
type nearby struct {
	net.Interface
	prefixes []netip.Prefix // of its addresses; none is link-local
}

// onLink reports whether an address is that of a neighbour there.
func (n nearby) onLink(a netip.Addr) bool {
	for _, p := range n.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// places returns where this portal is reached there. ports tells the port at an address.
func (n nearby) places(ports func(netip.Addr) uint16) (list []place) {
	var both [2]place
	for _, p := range n.prefixes {
		i := 0
		if p.Addr().Is6() {
			i = 1
		}
		if both[i].port == 0 {
			both[i].port = ports(p.Addr())
		}
		both[i].addrs = append(both[i].addrs, p.Addr())
	}
	for _, p := range both {
		if p.port != 0 && len(p.addrs) > 0 {
			p.addrs = p.addrs[:min(len(p.addrs), maxPerPeer)]
			list = append(list, p)
		}
	}
	return list
}

// interfaces returns those that have neighbours.
func interfaces() (list []nearby, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	const wanted, others = net.FlagUp | net.FlagMulticast, net.FlagLoopback | net.FlagPointToPoint
	for _, i := range all {
		if i.Flags&wanted != wanted || i.Flags&others != 0 || len(list) == maxInterfaces {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		n := nearby{Interface: i}
		for _, a := range addrs {
			ip, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, _ := netip.AddrFromSlice(ip.IP)
			ones, _ := ip.Mask.Size()
			if addr = addr.Unmap(); addr.IsGlobalUnicast() {
				n.prefixes = append(n.prefixes, netip.PrefixFrom(addr, ones))
			}
		}
		if len(n.prefixes) > 0 {
			list = append(list, n)
		}
	}
	return list, nil
}

// socket speaks multicast DNS by one IP version. Others on this machine, like avahi, may
// do so too: all have what is sent to the group.
type socket struct {
	conn net.PacketConn
	v4   *ipv4.PacketConn // nil: it is of IPv6
	v6   *ipv6.PacketConn
}

// open returns a socket of each IP version that this machine has, in the group at all
// the interfaces. It fails where there is none.
func open(on []nearby) (list []*socket, err error) {
	for _, of := range []func([]nearby) (*socket, error){open4, open6} {
		s, failed := of(on)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("speak multicast DNS: %w", err)
	}
	return list, nil
}

func open4(on []nearby) (*socket, error) {
	conn, err := net.ListenPacket("udp4", fmt.Sprintf("%v:%d", group4, port)) // a group's address: the port may be shared
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, v4: ipv4.NewPacketConn(conn)}
	joined := 0
	for _, i := range on {
		if err = s.v4.JoinGroup(&i.Interface, &net.UDPAddr{IP: group4}); err == nil {
			joined++
		}
	}
	if joined > 0 {
		err = errors.Join(s.v4.SetControlMessage(ipv4.FlagInterface|ipv4.FlagTTL, true), s.v4.SetMulticastTTL(255), s.v4.SetMulticastLoopback(true))
	}
	return s.ready(joined, err)
}

func open6(on []nearby) (*socket, error) {
	conn, err := net.ListenPacket("udp6", fmt.Sprintf("[%v]:%d", group6, port))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, v6: ipv6.NewPacketConn(conn)}
	joined := 0
	for _, i := range on {
		if err = s.v6.JoinGroup(&i.Interface, &net.UDPAddr{IP: group6}); err == nil {
			joined++
		}
	}
	if joined > 0 {
		err = errors.Join(s.v6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true), s.v6.SetMulticastHopLimit(255), s.v6.SetMulticastLoopback(true))
	}
	return s.ready(joined, err)
}

func (s *socket) ready(joined int, err error) (*socket, error) {
	if err == nil && joined == 0 {
		err = errors.New("no interface has neighbours")
	}
	if err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// read returns a packet, the index of the interface where it came, and whether no router
// has passed it on (RFC 6762 section 11).
func (s *socket) read(b []byte) (n, on int, near bool, err error) {
	if s.v4 != nil {
		n, c, _, err := s.v4.ReadFrom(b)
		if err != nil || c == nil {
			return 0, 0, false, err
		}
		return n, c.IfIndex, c.TTL == 255, nil
	}
	n, c, _, err := s.v6.ReadFrom(b)
	if err != nil || c == nil {
		return 0, 0, false, err
	}
	return n, c.IfIndex, c.HopLimit == 255, nil
}

// write sends a packet to the neighbours at an interface.
func (s *socket) write(b []byte, on int) error {
	var err error
	if s.v4 != nil {
		_, err = s.v4.WriteTo(b, &ipv4.ControlMessage{IfIndex: on}, &net.UDPAddr{IP: group4, Port: port})
	} else {
		_, err = s.v6.WriteTo(b, &ipv6.ControlMessage{IfIndex: on}, &net.UDPAddr{IP: group6, Port: port})
	}
	return err
}
