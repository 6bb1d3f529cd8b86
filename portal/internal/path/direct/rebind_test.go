package direct

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// middle is NATs between two portals: what the TLS client sends to front comes to the
// server from back, and the other way round.
type middle struct {
	t       testing.TB
	serving sync.WaitGroup

	mu             sync.Mutex // guards the following
	front, back    *net.UDPConn
	client, server netip.AddrPort
}

func newMiddle(t testing.TB, client, server netip.AddrPort) *middle {
	m := &middle{t: t, client: client, server: server}
	m.rebind(&m.front, m.fromClient)
	m.rebind(&m.back, m.fromServer)
	t.Cleanup(func() {
		m.mu.Lock()
		m.front.Close()
		m.back.Close()
		m.mu.Unlock()
		m.serving.Wait()
	})
	return m
}

// rebind has a NAT forget its port, and take another.
func (m *middle) rebind(socket **net.UDPConn, forward func([]byte)) {
	m.t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if *socket != nil {
		(*socket).Close()
	}
	*socket = c
	m.serving.Go(func() {
		b := make([]byte, 2048)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				forward(b[:n])
			}
		}
	})
}

func (m *middle) fromClient(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.back.WriteToUDPAddrPort(b, m.server)
}

func (m *middle) fromServer(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.front.WriteToUDPAddrPort(b, m.client)
}

func (m *middle) at() wire.Candidate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: m.front.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// newApart returns two portals of which only the client knows an address of the other,
// that of the NATs between them.
func newApart(t testing.TB) (both pair2, between *middle) {
	both = newPairOf(t, func(int, []wire.Candidate) {})
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	at := func(p *portal) netip.AddrPort { return netip.AddrPortFrom(loopback, p.finder.port(loopback).Local()) }
	between = newMiddle(t, at(both[0]), at(both[1]))
	both[0].Peer([]wire.Candidate{between.at()})
	return both, between
}

// The client's NAT gives it another port: the connection goes on, for QUIC follows who
// dialled as soon as the other side knows the new address for the peer's.
func TestConnectionFollowsTheClientToAnotherAddress(t *testing.T) {
	both, between := newApart(t)
	conns, _ := both.connect(t)
	carry(t, conns[0], conns[1])
	carry(t, conns[1], conns[0]) // the client knows by now that the handshake is over
	was := inUse(both[1].Path)
	between.rebind(&between.back, between.fromServer)
	both[0].Refresh() // the carrier is silent
	carry(t, conns[0], conns[1])
	carry(t, conns[1], conns[0])
	eventually(t, "the server's side knows where the connection is now", func() bool {
		now := inUse(both[1].Path)
		return len(now) == 1 && now[0] != was[0]
	})
}

// The server's NAT gives it another port: QUIC does not follow who was dialled, so the
// client is told that there is another way.
func TestClientDialsAnewWhereTheServerIsNow(t *testing.T) {
	both, between := newApart(t)
	conns, _ := both.connect(t)
	carry(t, conns[0], conns[1])
	between.rebind(&between.front, between.fromClient)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	both[1].Refresh()
	both[0].Refresh()
	if err := both[0].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	again, _ := both.connect(t)
	carry(t, again[0], again[1])
	if got, want := inUse(both[0].Path), between.at().Addr; !slices.Contains(got, want) {
		t.Errorf("%v in use, want %v", got, want)
	}
}
