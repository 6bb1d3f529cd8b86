package topo_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/topo"
)

// forge sends a UDP datagram of IPv4 with a source that is not the sender's.
func forge(t *testing.T, from *topo.Host, source, to netip.AddrPort, payload int) {
	t.Helper()
	const headers = 20 + 8
	b := make([]byte, headers+payload)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length and checksum
	copy(b[12:], source.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], source.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+payload)) // and no UDP checksum
	var err error
	from.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err == nil {
			err = errors.Join(unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}), unix.Close(fd))
		}
	})
	if err != nil {
		t.Fatalf("%s: send forged datagram: %v", from.Name(), err)
	}
}

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
	heard := victim.ListenUDP(5000)
	for range count {
		forge(t, attacker, netip.AddrPortFrom(victim.Addr(), 5000), toServer, size)
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
