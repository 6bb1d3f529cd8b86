package udp

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
)

// TestRelayAnswersFromTheAddressThatWasAsked has the two legs use two addresses
// of a relay that listens everywhere. Every read checks where its packet comes
// from, and a bind takes no answer from elsewhere.
func TestRelayAnswersFromTheAddressThatWasAsked(t *testing.T) {
	first, second, v6 := loopback, netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback()
	for _, c := range []struct {
		what   string
		listen []netip.Addr
		a, b   netip.Addr
	}{
		{"both IP versions", nil, first, second},
		{"both IP versions, a leg of each", nil, second, v6},
		{"IPv4", []netip.Addr{netip.IPv4Unspecified()}, second, first},
		{"IPv6", []netip.Addr{netip.IPv6Unspecified()}, v6, v6},
		{"named addresses", []netip.Addr{first, second}, second, first},
	} {
		t.Run(c.what, func(t *testing.T) {
			needAddress(t, c.a)
			needAddress(t, c.b)
			g := tunedRig(t, func(cfg *Config) { cfg.Listen = c.listen })
			m := g.session()
			for connection, shared := range []struct{ a, b bool }{{false, false}, {true, true}, {true, false}} {
				port := func(shared bool) uint16 {
					if shared {
						return g.shared.Port()
					}
					return m.Port
				}
				a := m.portalOf(0, uint16(connection), netip.AddrPortFrom(c.a, port(shared.a)))
				b := m.portalOf(1, uint16(connection), netip.AddrPortFrom(c.b, port(shared.b)))
				b.send([]byte("from b"))
				a.want([]byte("from b"))
				a.send([]byte("from a"))
				b.want([]byte("from a"))
				for range 2 { // with and without the kernel's joining and cutting
					burst := noise(10 * 100)
					if _, _, err := a.WriteMsgUDPAddrPort(burst, appendSegmentSize(nil, 100), a.relay); err != nil {
						t.Skipf("this kernel has no UDP_SEGMENT: %v", err)
					}
					for len(burst) > 0 {
						b.want(burst[:100])
						burst = burst[100:]
					}
				}
			}
		})
	}
}

// portalOf binds a portal whose own address is always the same one of its
// version, whichever of the relay's it uses: the system would choose that
// for what the relay sends, too.
func (m *meeting) portalOf(n uint8, connection uint16, relay netip.AddrPort) *portal {
	m.g.t.Helper()
	own := loopback
	if relay.Addr().Is6() {
		own = netip.IPv6Loopback()
	}
	return m.portalAt(m.g.socketAt(own), n, connection, relay)
}

func TestLegIsHeardAtItsOwnAddressOnly(t *testing.T) {
	g := tunedRig(t, func(*Config) {})
	m := g.session()
	for connection, port := range []uint16{m.Port, g.shared.Port()} {
		a := m.portalOf(0, uint16(connection), netip.AddrPortFrom(loopback, port))
		b := m.portalOf(1, uint16(connection), netip.AddrPortFrom(loopback, port))
		unknown := g.cfg.Drops.Count(drop.UnknownSource)
		elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)
		if _, err := a.WriteToUDPAddrPort([]byte("to another address of the relay"), elsewhere); err != nil {
			t.Fatal(err)
		}
		g.awaitDrops(drop.UnknownSource, unknown+1)
		g.wantNothing(b.UDPConn)

		// Until it binds there: then that is where it is.
		moved := &portal{a.UDPConn, g, a.binder, elsewhere}
		moved.binder.Start()
		moved.bind()
		b.send([]byte("from the other address"))
		moved.want([]byte("from the other address"))
		moved.send([]byte("to the other address"))
		b.want([]byte("to the other address"))
		want := bpf.Leg{Remote: a.addr(), Port: port, Local: elsewhere.Addr()}
		if got := g.legs(m, uint16(connection))[0]; got != want {
			t.Errorf("leg is at %v, want %v", got, want)
		}
	}
}
