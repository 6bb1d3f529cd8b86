package gate

import (
	"net"
	"net/netip"
	"testing"
)

// udp is where a caller over UDP comes from.
func udp(a, b, c, d byte) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), 4000))
}

// However many hold what they can get, there is room for who comes from elsewhere, and what is free
// again can be had by all.
func TestShareKeepsRoomForOthers(t *testing.T) {
	var s Share
	var leave []func()
	held := make(map[byte]int)
	for round := range 2 * PerPrefix {
		for prefix := range byte(100) {
			if out, ok := s.Enter(udp(10, 0, prefix, byte(round))); ok {
				held[prefix]++
				leave = append(leave, out)
			}
		}
	}
	if held[0] == 0 || held[0] > PerPrefix || held[99] == 0 || len(leave) >= Limit {
		t.Errorf("100 strangers hold %d, the first %d and the last %d", len(leave), held[0], held[99])
	}
	out, ok := s.Enter(udp(192, 0, 2, 1))
	if !ok {
		t.Fatal("they keep another out")
	}
	out()
	out() // harmless
	if s.total != len(leave) {
		t.Errorf("%d are counted, %d are there", s.total, len(leave))
	}
	for _, out := range leave {
		out()
	}
	if s.total != 0 || len(s.byPrefix) != 0 {
		t.Errorf("%d are left, of %d prefixes", s.total, len(s.byPrefix))
	}
}

func TestShareIsBounded(t *testing.T) {
	var s Share
	one := 0
	for range Limit {
		if _, ok := s.Enter(udp(10, 0, 0, 1)); ok {
			one++
		}
	}
	if one != PerPrefix {
		t.Errorf("one prefix holds %d, want %d", one, PerPrefix)
	}
	for i := range 2 * Limit {
		s.Enter(udp(11, byte(i>>8), byte(i), 1))
	}
	if s.total != Limit {
		t.Errorf("all hold %d, want %d", s.total, Limit)
	}
}
