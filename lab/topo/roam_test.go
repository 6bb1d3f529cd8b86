package topo_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/topo"
)

// phone --+-- home (NAT) ----+
//
//	+-- mobile (NAT) --+-- inet --- peer
func TestHostRoamsBetweenItsUplinks(t *testing.T) {
	l := topo.New(t)
	home, mobile := l.Router("home", topo.PortRestricted), l.Router("mobile", topo.PortRestricted)
	phone, peer := home.Host("phone"), observe(l, "peer")
	phone.Standby(mobile)
	want := func(when string, router *topo.Router) {
		t.Helper()
		if got := seen(t, phone.ListenUDP(0), peer.a, peer.addr).Addr(); got != router.Addr() {
			t.Errorf("%s the peer sees %v, want %s, %v", when, got, router.Name(), router.Addr())
		}
	}
	want("at first", home)
	phone.Leave()
	want("away", mobile)
	phone.SetUp(true)
	want("back", home)
	phone.Prefer(true)
	want("preferring the standby", mobile)
	phone.Prefer(false)
	want("preferring the first", home)
}

func TestRenumberedRouterHasAnotherAddressAndForgets(t *testing.T) {
	l := topo.New(t)
	home := l.Router("home", topo.PortRestricted)
	inside, peer := home.Host("inside").ListenUDP(0), observe(l, "peer")
	old := seen(t, inside, peer.a, peer.addr)
	home.Renumber()
	if home.Addr() == old.Addr() {
		t.Fatalf("it is still %v", old.Addr())
	}
	send(t, peer.a, "to the old address", old)
	if got := seen(t, inside, peer.a, peer.addr); got.Addr() != home.Addr() {
		t.Errorf("the peer sees %v, want the new address %v", got, home.Addr())
	}
	send(t, peer.a, "to the new address", seen(t, inside, peer.a, peer.addr))
	if got, _ := receive(t, inside); got != "to the new address" {
		t.Errorf("got what was sent %s", got)
	}
}

// A packet above the MTU of the way is lost, and nobody is told.
func TestPathLosesWhatIsLargerThanItsMTU(t *testing.T) {
	l := topo.New(t)
	provider := l.Router("provider")
	home := provider.Router("home", topo.PortRestricted, topo.IPv4Only(), topo.BlockICMPErrors)
	inside, peer := home.Host("inside"), observe(l, "peer")
	send := func(size int) bool {
		t.Helper()
		conn := inside.Dial("udp", netip.AddrPortFrom(peer.addr, portOf(peer.a)))
		if _, err := conn.Write(make([]byte, size-28)); err != nil {
			t.Fatal(err)
		}
		if err := peer.a.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := peer.a.ReadFromUDPAddrPort(make([]byte, 1500))
		return err == nil && n == size-28
	}
	for _, step := range []struct{ mtu, size int }{{1500, 1500}, {1280, 1280}} {
		provider.SetMTU(step.mtu)
		if !send(step.size) {
			t.Errorf("MTU %d: %d bytes did not arrive", step.mtu, step.size)
		}
	}
	if send(1281) {
		t.Error("MTU 1280: 1281 bytes arrived whole")
	}
}

func TestSomeHostsAreBlocked(t *testing.T) {
	l := topo.New(t)
	closed, open := l.Public("closed"), l.Public("open")
	home := l.Router("home", topo.PortRestricted, topo.BlockTCPTo(closed.Addr()), topo.BlockUDPTo(closed.Addr()))
	inside := home.Host("inside")
	for host, want := range map[*topo.Host]bool{closed: false, open: true} {
		ln := host.Listen(1000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		conn, err := inside.DialContext(ctx, "tcp", netip.AddrPortFrom(host.Addr(), 1000))
		cancel()
		if (err == nil) != want {
			t.Errorf("%s: %v, want a connection: %t", host.Name(), err, want)
		}
		if err == nil {
			conn.Close()
		}
		ln.Close()
		to := host.ListenUDP(1000)
		if err := to.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		send(t, inside.ListenUDP(0), "?", netip.AddrPortFrom(host.Addr(), 1000))
		if _, _, err := to.ReadFromUDPAddrPort(make([]byte, 100)); (err == nil) != want {
			t.Errorf("%s: %v, want a datagram: %t", host.Name(), err, want)
		}
	}
}
