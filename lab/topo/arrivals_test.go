package topo_test

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/lab/forge"
	"github.com/netport/netport/lab/topo"
)

// An attacker that forges the victim's address makes a careless server answer the victim, and the lab sees it.
func TestVictimCountsWhatAForgerMakesAServerSend(t *testing.T) {
	l := topo.New(t)
	attacker, victim, server := l.Public("attacker"), l.Public("victim"), l.Public("server")
	careless := server.ListenUDP(0)
	toServer := netip.AddrPortFrom(server.Addr(), portOf(careless))
	arrived, answered := victim.CountArrivals(), attacker.CountArrivals()
	if got := arrived(); got != (topo.Arrivals{}) {
		t.Fatalf("before anything was sent, %+v arrived", got)
	}
	const count, size = 10, 100
	forger := forge.New(t, attacker)
	heard := victim.ListenUDP(5000)
	for range count {
		forger.UDP(netip.AddrPortFrom(victim.Addr(), 5000), toServer, make([]byte, size))
		text, source := receive(t, careless)
		if source.Addr() != victim.Addr() {
			t.Fatalf("the server sees %v, want the forged %v", source, victim.Addr())
		}
		send(t, careless, text, source)
		receive(t, heard)
	}
	if got, want := arrived(), (topo.Arrivals{Packets: count, Bytes: count * (20 + 8 + size)}); got != want {
		t.Errorf("%+v reached the victim, want %+v", got, want)
	}
	if got := answered(); got != (topo.Arrivals{}) {
		t.Errorf("%+v reached the attacker, want nothing", got)
	}
}
