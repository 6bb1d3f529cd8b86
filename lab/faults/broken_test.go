package faults

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// Item 6 of the issue: the lab itself catches a portal that is built wrong. Each case runs where it must fail, and where
// the same thing works, so that the lab and not the test stops it.
func TestLabCatchesBrokenPortals(t *testing.T) {
	t.Parallel()
	t.Run("one that listens instead of dialling out", func(t *testing.T) {
		for _, c := range []struct {
			name    string
			options []topo.RouterOption
			reached bool
		}{
			{"behind a NAT", []topo.RouterOption{topo.FullCone, topo.IPv4Only()}, false},
			{"behind a firewall", []topo.RouterOption{topo.DropUnsolicited, topo.IPv4Only()}, false},
			{"behind neither", []topo.RouterOption{topo.IPv4Only()}, true},
		} {
			t.Run(c.name, func(t *testing.T) {
				l := topo.New(t)
				router := l.Router("office", c.options...)
				portal, relay := router.Host("portal"), l.Public("relay")
				ln := portal.Listen(20000)
				arrived := portal.CountArrivals()
				to := portal.Addr()
				if to.IsPrivate() {
					to = router.Addr()
				}
				if got := reaches(t, relay, netip.AddrPortFrom(to, 20000)); got != c.reached {
					t.Errorf("a dial from outside reaches it: %t, want %t", got, c.reached)
				}
				if got := arrived().Packets > 0; got != c.reached {
					t.Errorf("packets arrived: %t, want %t", got, c.reached)
				}
				ln.Close()
			})
		}
	})

	t.Run("one that answers from another address", func(t *testing.T) {
		for _, c := range []struct {
			nat     topo.NAT
			reached bool
		}{{topo.PortRestricted, false}, {topo.FullCone, true}} {
			l := topo.New(t)
			client := l.Router("home", c.nat, topo.IPv4Only()).Host("client")
			asked, answers := l.Public("asked"), l.Public("answers")
			in, out := asked.ListenUDP(20000), answers.ListenUDP(20000)
			await.Limit(t, in)
			conn := client.ListenUDP(0)
			await.Limit(t, conn)
			if _, err := conn.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(asked.Addr(), 20000)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			_, from, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			out.WriteToUDPAddrPort([]byte("wrong"), from)
			in.WriteToUDPAddrPort([]byte("right"), from)
			n, _, err := conn.ReadFromUDPAddrPort(b)
			if got := string(b[:n]) == "wrong"; err != nil || got != c.reached {
				t.Errorf("%+v: got %q, %v first; want the answer of another address: %t", c.nat, b[:n], err, c.reached)
			}
		}
	})
}

// reaches reports whether a host can open a connection.
func reaches(t *testing.T, host *topo.Host, to netip.AddrPort) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", to)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// T28: a relay that joins legs of two sessions, or a leg with itself, gets no tunnel made, and no target dialled.
func TestCrossedSessionsMakeNoTunnel(t *testing.T) {
	w := newWorld(t)
	tablet := w.Portal(w.home.Host("tablet"))
	w.Apply(w.policy(w.echoes()[0]) +
		"[[forward]]\nname = \"tablet\"\nfrom = \"tablet tcp://127.0.0.1:7000\"\nto = \"factory " + w.service("tcp", echoPort) + "\"\n")
	w.laptop.WaitUp("tcp")
	tablet.WaitUp("tablet")
	atHome, atOffice := newMiddle(t, w.home), newMiddle(t, w.office)

	for _, c := range []struct {
		name    string
		where   *middle
		join    func(a, b crossing)
		portal  *daemon.Portal // that finds out first
		finding string
	}{
		{"crossed", atOffice, func(a, b crossing) { a.with(b.relay); b.with(a.relay) }, w.factory, "expected the name"},
		{"reflected", atHome, func(a, b crossing) { a.with(a.portal); b.with(b.portal) }, w.laptop, "prove the peer of carrier 0: tls:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln := w.plc.Listen(echoPort)
			defer ln.Close()
			c.where.cross(c.join)
			w.factory.Restart() // no tunnel is left
			mark := c.portal.Process().Mark()
			defer w.dial("tcp", entryPort).Close()
			defer tablet.Host().Dial("tcp", local(entryPort)).Close()
			wantLogged(t, c.portal.Daemon, mark, "not the peer answers", c.finding)
			ln.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := ln.Accept(); err == nil {
				t.Error("a target was dialled")
			}
			c.where.use(faithful)
			defer await.Greet(ln)()
			for _, host := range []*topo.Host{w.laptop.Host(), tablet.Host()} {
				await.Until(t, "served as soon as the relay is honest", func() error { return await.Greeted(t.Context(), host, local(entryPort)) })
			}
		})
	}
}

// crossing is one connection that a man in the middle holds, its leg proven to the relay.
type crossing struct{ portal, relay *net.TCPConn }

// with joins the portal's side with something.
func (c crossing) with(other net.Conn) {
	go func() { io.Copy(other, c.portal); other.Close() }()
	if other != net.Conn(c.portal) {
		go func() { io.Copy(c.portal, other); c.portal.Close() }()
	}
}
