package control

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// bill counts what a connection would put on the wire, both ways: TCP with
// timestamps, segments of 1,400 bytes, an ACK for every second segment or 40 ms
// after the last, unless there is something to send by then.
type bill struct {
	mu      sync.Mutex
	header  int // of IP and TCP
	bytes   int
	packets int
	owed    [2]int // segments not acknowledged by a side
	since   [2]time.Time
}

func (l *bill) packet(payload int) {
	l.packets++
	l.bytes += l.header + payload
}

// metered is one side's end of the connection.
type metered struct {
	net.Conn
	bill *bill
	side int
}

func (m metered) Write(b []byte) (int, error) {
	m.bill.mu.Lock()
	for at := 0; at < len(b); at += 1400 {
		m.bill.segment(m.side, min(1400, len(b)-at))
	}
	m.bill.mu.Unlock()
	return m.Conn.Write(b)
}

func (l *bill) segment(side, payload int) {
	now := time.Now()
	if l.owed[side] > 0 && now.Sub(l.since[side]) >= 40*time.Millisecond {
		l.packet(0) // it went on its own
	}
	l.owed[side] = 0
	l.packet(payload)
	other := 1 - side
	if l.owed[other] > 0 && now.Sub(l.since[other]) >= 40*time.Millisecond {
		l.packet(0)
		l.owed[other] = 0
	}
	if l.owed[other]++; l.owed[other] == 2 {
		l.packet(0)
		l.owed[other] = 0
	}
	l.since[other] = now
}

// TestIdlePortalCostsLittle adds up what a portal that nobody uses sends and
// receives in its first day (S4: at most 100 KB, where the network lets it): the connection with its TLS,
// 10 grants and tickets with 5 portals at 3 relays, both renewed twice, the
// comings and goings of the others, round trips to the relays, and pings.
func TestIdlePortalCostsLittle(t *testing.T) {
	// A measurement of a relay is two connections of 7 packets each, and 40
	// bytes of options in the SYNs; it is done 5 times.
	const measured = 3 * 2 * 5
	r := newRoles(t)
	addr := netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		header int
		hold   time.Duration // of the network
		limit  int
	}{
		{20 + 32, 2 * time.Hour, 100_000},
		{40 + 32, 2 * time.Hour, 100_000},
		// A network that forgets so soon needs 288 pings, and a connection to find out.
		{20 + 32, 310 * time.Second, 125_000},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			p := NewPauses(Learned{}, func() {})
			d := r.dialer()
			d.Pauses = func() *Pauses { return p }
			total := bill{header: tt.header}
			connections := 0
			var dead suspect
			for left := 24 * time.Hour; left > 0; left = 24*time.Hour - time.Since(begin) {
				connections++
				dead.judge(p)
				a, b := net.Pipe()
				var last atomic.Int64
				var gone atomic.Bool
				last.Store(time.Now().UnixNano())
				nat := func(c net.Conn, side int) net.Conn { return metered{natConn{c, tt.hold, &last, &gone}, &total, side} }
				dead = oneDay(t, r, d, nat(a, 0), nat(b, 1), left, addr)
				for range 3 + 4 { // TCP's own beginning and end
					total.packet(0)
				}
				b.Close()
			}
			for range measured * 7 {
				total.packet(6)
			}
			t.Logf("headers of %d bytes, a network that holds %v: %d bytes in %d packets, %d connections, a ping every %v",
				tt.header, tt.hold, total.bytes, total.packets, connections, p.next(time.Now()))
			if total.bytes > tt.limit {
				t.Errorf("%d bytes in a day, want %d at most", total.bytes, tt.limit)
			}
			if total.packets < 2*24*60/10 {
				t.Errorf("%d packets: this test counts nothing", total.packets)
			}
		})
	}
}

// oneDay runs a connection with what a server and an idle portal have to say.
func oneDay(t *testing.T, r roles, d *Dialer[wire.ToPortal, wire.FromPortal], portal, server net.Conn, left time.Duration, addr netip.Addr) suspect {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), left)
	defer cancel()
	var sides sync.WaitGroup
	sides.Go(func() {
		acc, err := Accept(t.Context(), server, r.serverTLS())
		if err != nil {
			t.Error(err)
			return
		}
		key := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
		c := WelcomePortal(acc, wire.Welcome{Version: wire.ControlVersion, Stamp: []ed25519.PublicKey{key}}, discard)
		day, end := context.WithCancel(ctx)
		sides.Go(func() { talk(day, c, addr) })
		c.Run(ctx, func(wire.FromPortal) error { return nil })
		end()
	})
	c, _, err := d.greet(t.Context(), portal)
	if err != nil {
		t.Fatal(err)
	}
	day, end := context.WithCancel(ctx)
	sides.Go(func() {
		for every := time.NewTicker(6 * time.Hour); ; {
			c.Send(wire.RelayTimes{Times: []wire.RelayTime{{Relay: "relay-1"}, {Relay: "relay-2"}, {Relay: "relay-3"}}})
			select {
			case <-every.C:
			case <-day.Done():
				return
			}
		}
	})
	c.Run(ctx, func(wire.ToPortal) error { return nil })
	dead := suspect{c.pauses, c.suspect(), time.Now()}
	end()
	server.Close()
	sides.Wait()
	return dead
}

// talk says what a server has to say in a day.
func talk(ctx context.Context, c *serverConn, addr netip.Addr) {
	renew := func() {
		for range 10 {
			c.Send(wire.PutGrant{Grant: make([]byte, 450)})
		}
		for peer := range 5 {
			for relay := range 3 {
				c.Send(wire.Ticket{
					Session: wire.SessionID{1}, Peer: fmt.Sprint("portal-", peer),
					Relay: wire.RelayAccess{Name: fmt.Sprint("relay-", relay), Addresses: []netip.Addr{addr, addr}, SharedTCP: 443, SharedUDP: 443},
				})
			}
		}
	}
	renew()
	c.Send(wire.GrantsComplete{Version: 7})
	c.Send(wire.Servers{Addresses: []string{"netport.example.org:443", "netport-2.example.org", "netport-3.example.org"}})
	var places []wire.RelayPlace
	for i := range 3 {
		places = append(places, wire.RelayPlace{Name: fmt.Sprint("relay-", i), Addresses: []netip.Addr{addr, addr}, Port: 443})
	}
	c.Send(wire.Relays{Relays: places})
	c.Send(wire.RelayState{Ready: true})
	for i := range 5 {
		c.Send(wire.PeerState{Name: fmt.Sprint("portal-", i), Online: true})
	}
	hour := time.NewTicker(time.Hour + 7*time.Second)
	defer hour.Stop()
	for n := 1; ; n++ {
		select {
		case <-hour.C:
		case <-ctx.Done():
			return
		}
		c.Send(wire.PeerState{Name: fmt.Sprint("portal-", n%5), Online: n%2 == 0})
		if n%10 == 0 {
			renew()
		}
	}
}
