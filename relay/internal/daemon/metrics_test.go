package daemon

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/metrics/metricstest"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
)

// measured has the relay serve its metrics, and tells where.
func measured(address *string) func(*config.Config) {
	return func(c *config.Config) {
		*address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ownPort(c)).String()
		c.Metrics = scrape.Address{Network: "tcp", Address: *address}
		c.Capacity, c.SessionsPerPortal = 2000, 2000
	}
}

// TestMetricsAreTrue carries a known number of bytes by each way, and has strangers and
// orders refused.
func TestMetricsAreTrue(t *testing.T) {
	var address string
	s := newServer(t, measured(&address))
	s.next("what the relay offers")
	const sessions, rounds = 3, 7
	var text string
	var orders []wire.CreateSession
	buf := make([]byte, 100)
	for range sessions {
		m := order("ann", "factory")
		orders = append(orders, m)
		ready := s.create(m)
		a, b := legs(t, m, ready.TCP)
		relay := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ready.UDP)
		var portals [2]*net.UDPConn
		for n := range portals {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			portals[n] = c
			id := leg.ID{Session: m.ID, Leg: uint8(n)}
			if _, err := legtest.Bind(t.Context(), leg.NewBinder(id, m.Legs[n].Secret, 0), c, relay); err != nil {
				t.Fatal(err)
			}
		}
		for range rounds {
			carry(t, a, b, "forth")
			carry(t, b, a, "back")
			portals[0].WriteToUDPAddrPort([]byte("datagram"), relay)
			portals[1].SetReadDeadline(time.Now().Add(patience))
			if n, err := portals[1].Read(buf); err != nil || string(buf[:n]) != "datagram" {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
		}
	}
	unknown := order("ann", "factory")
	unknown.Transports = wire.TransportPacket
	s.wantRefused(unknown, wire.ReasonRelayRefused)

	carried := map[string]float64{
		`netport_relay_bytes_total{transport="tcp",plane="userspace",direction="forth"}`:   sessions * rounds * 5,
		`netport_relay_bytes_total{transport="tcp",plane="userspace",direction="back"}`:    sessions * rounds * 4,
		`netport_relay_bytes_total{transport="udp",plane="userspace",direction="forth"}`:   sessions * rounds * 8,
		`netport_relay_bytes_total{transport="udp",plane="userspace",direction="back"}`:    0,
		`netport_relay_packets_total{transport="udp",plane="userspace",direction="forth"}`: sessions * rounds,
		`netport_relay_sessions_opened_total{by="server"}`:                                 sessions,
		`netport_relay_sessions_refused_total{reason="relay_refused"}`:                     1,
		`netport_relay_server_connected`:                                                   1,
		`netport_relay_sessions_capacity`:                                                  2000,
	}
	// The last bytes have been read here, and may not have been counted. A port that
	// another program holds stays taken.
	const used = `netport_relay_ports{state="used"}`
	var others float64
	for deadline := time.Now().Add(patience); ; {
		text = metricstest.Get(t, address)
		p := metricstest.Read(t, text)
		counted := true
		for name, want := range carried {
			counted = counted && p[name] == want
		}
		if counted || time.Now().After(deadline) {
			p.Want(t, carried)
			p.Want(t, map[string]float64{
				`netport_relay_sessions{by="server"}`:                     sessions,
				`netport_relay_tcp_connections{plane="userspace"}`:        sessions,
				`netport_relay_udp_legs`:                                  2 * sessions,
				`netport_relay_plane_info{interface="",mode="userspace"}`: 1,
			})
			others = p[used] - sessions
			break
		}
	}
	if others < 0 {
		t.Errorf("%v of %d sessions' ports are taken", others+sessions, sessions)
	}
	metricstest.Lint(t, text)

	// What has ended is still counted.
	for _, m := range orders {
		s.send(wire.EndSession{ID: m.ID, Reason: wire.ReasonRevoked})
		s.next("its end")
	}
	p := metricstest.Read(t, metricstest.Get(t, address))
	p.Want(t, carried)
	p.Want(t, map[string]float64{
		`netport_relay_sessions{by="server"}`: 0,
		`netport_relay_udp_legs`:              0,
		used:                                  others,
		`netport_relay_sessions_ended_total{reason="revoked"}`: sessions,
	})
}

func TestStrangersAreCounted(t *testing.T) {
	var address string
	s := newServer(t, measured(&address))
	s.next("what the relay offers")
	ready := s.create(order("ann", "factory"))
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ready.TCP))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(strings.Repeat("x", leg.PrefaceLen)))
	c.SetDeadline(time.Now().Add(patience))
	io.ReadAll(c)
	const series = `netport_relay_drops_total{reason="malformed",plane="userspace"}`
	for deadline := time.Now().Add(patience); metricstest.Read(t, metricstest.Get(t, address))[series] != 1; {
		if time.Now().After(deadline) {
			t.Fatal(metricstest.Get(t, address))
		}
	}
}

// TestScrapeIsCheap has 1,000 sessions, of which a scrape asks each.
func TestScrapeIsCheap(t *testing.T) {
	var address string
	s := newServer(t, measured(&address))
	s.next("what the relay offers")
	const sessions = 1000
	for range sessions {
		m := order("ann", "factory")
		m.Transports = wire.TransportUDP
		s.create(m)
	}
	begun := time.Now()
	text := metricstest.Get(t, address)
	took := time.Since(begun)
	metricstest.Read(t, text).Want(t, map[string]float64{`netport_relay_sessions{by="server"}`: sessions})
	t.Logf("%d bytes in %v", len(text), took)
	if len(text) > 32<<10 || took > time.Second {
		t.Errorf("a page of %d bytes took %v", len(text), took)
	}
}
