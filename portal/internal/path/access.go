package path

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// minSessionPort is the lowest port of a session: below are services that
// somebody else may run.
const minSessionPort = 1024

// Mode is how a portal goes to a relay.
type Mode uint8

// The modes. The first are those of splice mode, where the relay joins two
// connections, in the order in which they are tried. Each portal goes by its own.
const (
	SessionPort Mode = iota // TCP to the session's own port
	SharedPort              // TCP to the relay's shared port
	SharedTLS               // the same inside TLS, which passes where only that does
	PacketPort              // packet mode: one TCP connection from portal to portal, whose packets the relay forwards
	UDPLeg                  // a bound UDP leg, and QUIC over it

	spliceModes = PacketPort // how many are of splice mode
)

func (m Mode) String() string {
	return [...]string{"relay", "relay-shared", "relay-tls", "relay-packet", "relay-udp"}[m]
}

// spliceAt is when the modes of splice mode are tried, by their place in the
// order. A network that passes odd ports as well as well-known ones costs a
// connection more where the relay is far; one that does not, a moment.
var spliceAt = [spliceModes]time.Duration{0, 50 * time.Millisecond, 250 * time.Millisecond}

// candidate is one address to try in one mode.
type candidate struct {
	mode Mode
	addr netip.AddrPort
	at   time.Duration // from the beginning of splice mode
}

// candidates lists what to try for a session in splice mode, beginning with
// the mode first.
func candidates(access wire.RelayAccess, transports wire.Transports, first Mode) []candidate {
	var list []candidate
	place := 0
	for i := range spliceModes {
		mode := (first + i) % spliceModes
		port := access.TCP
		if mode != SessionPort {
			port = access.SharedTCP
		}
		usable := transports&wire.TransportSplice != 0
		if mode == SharedTLS {
			usable = transports&wire.TransportTLS != 0
		}
		if port == 0 || !usable {
			continue
		}
		var addrs []netip.AddrPort
		for _, a := range access.Addresses {
			addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), port))
		}
		for j, a := range eyeballs.Order(addrs) {
			list = append(list, candidate{mode, a, spliceAt[place] + time.Duration(j)*eyeballs.Stagger})
		}
		place++
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].at < list[j].at })
	return list
}

// packetAddr returns the address of packet mode for connection 0; none if
// the session has no packet mode for this portal. The relay admits the address
// from which the server saw this portal, so the way to the relay must be of the
// same IP version as that to the server. Both portals are told the relay's
// addresses in the same order and take the first.
func packetAddr(access wire.RelayAccess, transports wire.Transports, server netip.Addr) netip.AddrPort {
	if access.Packet == 0 || transports&wire.TransportPacket == 0 {
		return netip.AddrPort{}
	}
	for _, a := range access.Addresses {
		if a := a.Unmap(); a.BitLen() == server.Unmap().BitLen() {
			return netip.AddrPortFrom(a, access.Packet)
		}
	}
	return netip.AddrPort{}
}

// udpAddrs returns where the UDP leg of a session may be bound: one address of
// each IP version, that of the way to the server first. own says that the port
// is shared with other sessions, so that the leg needs a socket of its own.
func udpAddrs(access wire.RelayAccess, transports wire.Transports, server netip.Addr) (list []netip.AddrPort, own bool) {
	port := access.UDP
	if port == 0 {
		port, own = access.SharedUDP, true
	}
	if port == 0 || transports&wire.TransportUDP == 0 {
		return nil, false
	}
	for _, a := range access.Addresses {
		a := netip.AddrPortFrom(a.Unmap(), port)
		if !slices.ContainsFunc(list, func(b netip.AddrPort) bool { return a.Addr().BitLen() == b.Addr().BitLen() }) {
			list = append(list, a)
		}
	}
	if len(list) == 2 && list[1].Addr().BitLen() == server.Unmap().BitLen() {
		slices.Reverse(list)
	}
	return list, own
}

// checkAccess refuses a relay that no honest server names: an address that is
// no relay's would make every portal a tool against whoever has it.
func checkAccess(access wire.RelayAccess, server netip.Addr) error {
	if err := CheckAddresses(access.Name, access.Addresses, server); err != nil {
		return err
	}
	if access.TCP == 0 && access.UDP == 0 && access.SharedTCP == 0 && access.SharedUDP == 0 && access.Packet == 0 {
		return fmt.Errorf("relay %q has no port", access.Name)
	}
	for _, port := range []uint16{access.TCP, access.UDP, access.Packet} {
		if port != 0 && port < minSessionPort {
			return fmt.Errorf("relay %q is said to have a session at port %d; sessions are at %d and above", access.Name, port, minSessionPort)
		}
	}
	if access.Packet > math.MaxUint16-leg.PacketPorts+1 {
		return fmt.Errorf("relay %q is said to have %d packet ports from %d on, and there are no such ports", access.Name, leg.PacketPorts, access.Packet)
	}
	return nil
}

// CheckAddresses refuses addresses at which there is no relay.
//
// server is the address that the server was reached at. Only a server on this
// machine may name a relay on this machine, and only one in a private network
// a relay in one.
func CheckAddresses(relay string, addrs []netip.Addr, server netip.Addr) error {
	server = server.Unmap()
	for _, a := range addrs {
		a := a.Unmap()
		switch kind := address.KindOf(a); {
		case kind == address.Loopback && a.IsLoopback() && server.IsLoopback():
		case kind != address.Ordinary:
			return fmt.Errorf("relay %q is said to be at %s, a %s address, which is not dialled", relay, a, kind)
		case a.IsPrivate() && !server.IsPrivate() && !server.IsLoopback():
			return fmt.Errorf("relay %q is said to be at %s, a private address, by a server at %s, which is none", relay, a, server)
		}
	}
	return nil
}
