package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
)

// middle is a man in the middle, where a hostile relay would sit as well: a router turns every connection to a relay's
// session ports over to it, and it carries their bytes as its tamper says. The first 64 bytes of each connection from
// a portal prove its leg to the relay; what follows is the portals' own. UDP to those ports, and what goes to the
// shared ones, is dropped, so that nothing passes it by.
type middle struct {
	t      *testing.T
	router *topo.Router

	mu      sync.Mutex // guards the following
	tamper  tamper
	join    func(a, b crossing) // of the next two, instead; while it is not nil, others are closed
	waiting *crossing           // the first of the two
	joined  bool
	conns   []net.Conn
}

// tamper carries what comes from the relay to the portal. It ends when it returns; then both sides are closed.
type tamper func(portal io.Writer, relay io.Reader) error

const middlePort = 9999

// faithful changes nothing.
func faithful(portal io.Writer, relay io.Reader) error {
	_, err := io.Copy(portal, relay)
	return err
}

// newMiddle puts a man in the middle of what a router's hosts send to relays.
func newMiddle(t *testing.T, router *topo.Router) *middle {
	m := &middle{t: t, router: router, tamper: faithful}
	ln := router.Listen(middlePort)
	t.Cleanup(m.close)
	router.Run("nft", fmt.Sprintf(`add table ip middle;
		add chain ip middle prerouting { type nat hook prerouting priority dstnat - 1; };
		add rule ip middle prerouting iifname "lan" tcp dport 20000-32767 redirect to :%d;
		add chain ip middle forward { type filter hook forward priority filter - 1; };
		add rule ip middle forward iifname "lan" udp dport { 3478, 20000-32767 } drop;
		add rule ip middle forward iifname "lan" tcp dport 3478 drop`, middlePort))
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // closed with the test
			}
			go m.carry(conn.(*net.TCPConn))
		}
	}()
	return m
}

// use makes the man in the middle tamper with connections that begin from now on.
func (m *middle) use(tamper tamper) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tamper, m.join = tamper, nil
}

// cross makes it join the next two connections with each other, once their legs are proven, instead of each with its
// own, and refuse those behind them.
func (m *middle) cross(join func(a, b crossing)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.join, m.waiting, m.joined = join, nil, false
}

// hold joins a connection with the one that waits, or lets it wait.
func (m *middle) hold(c crossing, join func(a, b crossing)) {
	_, err := io.CopyN(c.relay, c.portal, leg.PrefaceLen)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil || m.joined:
		c.portal.Close()
		c.relay.Close()
	case m.waiting == nil:
		m.waiting = &c
	default:
		m.joined = true
		join(*m.waiting, c)
	}
}

func (m *middle) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		conn.Close()
	}
}

// carry carries one connection of a portal.
func (m *middle) carry(portal *net.TCPConn) {
	to, err := originalDestination(portal)
	if err != nil {
		m.t.Errorf("man in the middle: %v", err)
		portal.Close()
		return
	}
	relay, err := m.router.DialContext(m.t.Context(), "tcp", to)
	if err != nil { // the relay is gone
		portal.Close()
		return
	}
	m.mu.Lock()
	tamper, join := m.tamper, m.join
	m.conns = append(m.conns, portal, relay)
	m.mu.Unlock()
	if join != nil {
		m.hold(crossing{portal, relay.(*net.TCPConn)}, join)
		return
	}
	defer portal.Close()
	defer relay.Close()
	go func() {
		io.Copy(relay, portal)
		relay.(*net.TCPConn).CloseWrite()
	}()
	tamper(portal, relay)
}

// originalDestination is where a redirected connection was going (netfilter's SO_ORIGINAL_DST).
func originalDestination(conn *net.TCPConn) (to netip.AddrPort, err error) {
	const soOriginalDst = 80
	raw, err := conn.SyscallConn()
	if err != nil {
		return to, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var b *unix.IPv6Mreq // 16 bytes that hold a sockaddr_in
		if b, err = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, soOriginalDst); err == nil {
			a := b.Multiaddr
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:8])), binary.BigEndian.Uint16(a[2:4]))
		}
	})
	return to, errors.Join(controlErr, err)
}
