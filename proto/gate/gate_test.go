package gate

import (
	"net"
	"net/netip"
	"testing"
)

// peer is a connection that only knows where it comes from and whether it was
// closed.
type peer struct {
	net.Conn
	from   netip.AddrPort
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }
func (p *peer) Close() error         { p.closed = true; return nil }

func from(a, b, c, d byte) *peer {
	return &peer{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), 4000)}
}

func TestFullGateClosesTheOldest(t *testing.T) {
	var g Gate
	var all []*peer
	for i := range Limit {
		p := from(10, byte(i/50), byte(i%50), 1)
		all = append(all, p)
		g.Enter(p)
	}
	newest := from(192, 0, 2, 1)
	leave := g.Enter(newest)
	if !all[0].closed || newest.closed {
		t.Errorf("closed: oldest %v, newest %v; want only the oldest", all[0].closed, newest.closed)
	}
	if got := g.Waiting(); got != Limit {
		t.Errorf("waiting = %d, want %d", got, Limit)
	}
	leave()
	leave() // harmless
	if got := g.Waiting(); got != Limit-1 {
		t.Errorf("after leaving: waiting = %d, want %d", got, Limit-1)
	}
	for _, p := range all[1:] {
		if p.closed {
			t.Fatal("more than the oldest was closed")
		}
	}
}

func TestOnePrefixCannotCrowdOutOthers(t *testing.T) {
	var g Gate
	other := from(192, 0, 2, 1)
	g.Enter(other)
	for i := range 3 * PerPrefix {
		g.Enter(from(10, 0, 0, byte(i)))
	}
	if other.closed {
		t.Error("a prefix that was over its share closed another's connection")
	}
	if got := g.Waiting(); got != PerPrefix+1 {
		t.Errorf("waiting = %d, want %d", got, PerPrefix+1)
	}
}

func TestGateForgetsPrefixesThatLeft(t *testing.T) {
	var g Gate
	for i := range 5000 {
		g.Enter(from(byte(i>>8), byte(i), 0, 1))()
	}
	if got := len(g.byPrefix); got != 0 {
		t.Errorf("%d prefixes remembered, want 0", got)
	}
}
