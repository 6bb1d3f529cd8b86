package path

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/network/networktest"
)

// A portal moves from a network of both IP versions to one that has only
// IPv6.
func TestUDPLegGoesToTheAddressThatThereIsAWayTo(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	networktest.Run(t, "ip link set lo up")
	a := newAuthority(t)
	relay := newUDPRelay(t, "127.0.0.1", "::1")
	access := accessAt(at(relay.conns[0]), at(relay.conns[1]))
	client, server := a.finder("ann"), a.finder("factory")
	legs := [2]*Leg{relay.leg(client, 0, access), relay.leg(server, 1, access)}
	// A relay has the same port at all its addresses; this one cannot.
	for _, l := range legs {
		l.udp = []netip.AddrPort{at(relay.conns[0]), at(relay.conns[1])}
	}
	ends := a.connect(quicOf(legs[0].Ways(0)), quicOf(legs[1].Ways(0)))
	a.carries(ends[0], ends[1], 1000)

	// The server's portal goes on waiting; both lose their way to IPv4.
	wait := a.wait(quicOf(legs[1].Again()))
	networktest.Run(t, "ip addr del 127.0.0.1/8 dev lo")
	change := network.Change{Gone: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	client.moved(change)
	server.moved(change)
	moved := a.dial(quicOf(legs[0].Again()))
	a.carries(moved, <-wait, 1000)
	if got := moved.RemoteAddr().String(); got != at(relay.conns[1]).String() {
		t.Errorf("the relay is reached at %s, want %v", got, at(relay.conns[1]))
	}
}

// A NAT that has another port is nothing new; one that has another address is
// another way out, for the connection to the server, too.
func TestAnotherAddressOfTheNATIsTold(t *testing.T) {
	p := newPortals(t)
	told := make(chan struct{}, 10)
	p.finders[0].Renumbered = func() { told <- struct{}{} }
	ends := p.connect()
	for i, address := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.2"} {
		p.nats[0].renumber(t, address)
		p.legs[0].Refresh()
		p.relay.wantBinds(0, 2+i)
		p.carries(ends[0], ends[1], 1000)
	}
	eventually(t, "told once", func() bool { return len(told) == 1 })
}

func TestSmallSegmentsAreSetBeforeTheConnection(t *testing.T) {
	f := newAuthority(t).finder("ann")
	for _, small := range []bool{false, true} {
		if small {
			f.memory.suspect("relay-1")
		}
		conn, _ := connected(t, f)
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var mss int
		raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
		if err != nil || (mss <= smallSegment) != small {
			t.Errorf("small segments %v: %d bytes, %v", small, mss, err)
		}
	}
}

// The way to a relay is narrower than this machine knows, and nobody says so. A
// TLS client's first words do not fit.
func TestHandshakeThatIsSwallowedIsGivenUpAndSmallSegmentsTried(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	for _, cmd := range []string{
		"ip link set lo up mtu 1500",
		"nft add table inet hole",
		"nft add chain inet hole in { type filter hook input priority 0 ; }",
		"nft add rule inet hole in meta l4proto tcp meta length > 1280 drop",
	} {
		networktest.Run(t, cmd)
	}
	f := newAuthority(t).finder("ann")
	said := bytes.Repeat([]byte("x"), 1700)
	narrow, far := connected(t, f)
	narrow.Write(said)
	narrow.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := narrow.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection on which nothing gets through: %v", err)
	}
	if !f.memory.small("relay-1") {
		t.Fatal("the next connection would do no better")
	}
	far.Close()
	again, far := connected(t, f)
	again.Write(said)
	far.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(far, make([]byte, len(said))); err != nil {
		t.Errorf("with small segments: %v", err)
	}
	again.proven()
	if known, _ := f.memory.recall(f.memory.ofRelay(smallMSS, "relay-1")); !known.connected {
		t.Error("it is not remembered that small segments were better")
	}
}
