package daemon_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"
)

// left --- home (NAT) ---+-- inet --+--- right
//
//	broker -+          +- relay
func TestBrokerMakesSessionsThatCarryDatagrams(t *testing.T) {
	l := topo.New(t)
	home := l.Router("home", topo.PortRestricted)
	left, right := home.Host("left"), l.Public("right")
	b := daemon.NewBroker(t, l.Public("broker"))
	relay := b.Relay(l.Public("relay"))
	s := b.Open(relay, daemon.Terms{Sources: [2]netip.Addr{home.Addr(), right.Addr()}, Lifetime: time.Second})
	at := netip.AddrPortFrom(relay.Host().Addr(), s.Ready.UDP)
	legs := make([]*net.UDPConn, 2)
	for i, host := range []*topo.Host{left, right} {
		legs[i] = host.ListenUDP(0)
		await.Limit(t, legs[i])
		ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
		_, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: s.ID, Leg: uint8(i)}, s.Secrets[i], 1), legs[i], at)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := legs[0].WriteToUDPAddrPort([]byte("over the relay"), at); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if n, _, err := legs[1].ReadFromUDPAddrPort(got); err != nil || string(got[:n]) != "over the relay" {
		t.Errorf("got %q, %v", got[:n], err)
	}
	await.Until(t, "told that the session is over", func() error {
		over, ok := b.Over(s)
		if !ok {
			return fmt.Errorf("it is not")
		}
		if want := uint64(len("over the relay")); over.Forth != want || over.Back != 0 || over.Reason != wire.ReasonIdle {
			t.Errorf("the relay says %+v, want %d bytes forth and that it was idle", over, want)
		}
		return nil
	})
	relay.Kill()
	relay.Start()
	if held := b.Held(relay); len(held) > 0 {
		t.Errorf("a relay that lost all comes back with %v", held)
	}
}
