package forge_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/forge"
	"github.com/netport/netport/lab/topo"
)

// What is forged is taken for genuine, by both IP versions: the datagram reaches a socket, and the SYN is answered to whom
// it names.
func TestForgedPacketsAreTaken(t *testing.T) {
	l := topo.New(t)
	attacker, victim, server := l.Public("attacker"), l.Public("victim"), l.Public("server")
	f := forge.New(t, attacker)
	const port = 7000
	conn := server.ListenUDP(port)
	await.Limit(t, conn)
	server.Listen(port)
	for _, addr := range [][2]netip.Addr{{victim.Addr4(), server.Addr4()}, {victim.Addr6(), server.Addr6()}} {
		from, to := netip.AddrPortFrom(addr[0], 5000), netip.AddrPortFrom(addr[1], port)
		for size := range 3 { // odd lengths, too
			f.UDP(from, to, make([]byte, size))
			n, got, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
			if err != nil || n != size || netip.AddrPortFrom(got.Addr().Unmap(), got.Port()) != from {
				t.Errorf("%d bytes from %v, %v; want %d from %v", n, got, err, size, from)
			}
		}
		answered := victim.CountArrivals()
		f.TCP(from, to, forge.Segment{Flags: forge.SYN, Seq: 1})
		await.Within(t, "answered", 10*time.Second, func() error {
			if n := answered().Packets; n == 0 {
				return fmt.Errorf("%d packets reached the victim", n)
			}
			return nil
		})
	}
	if f.Sent() == 0 {
		t.Error("nothing was counted as sent")
	}
}
