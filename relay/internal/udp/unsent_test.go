package udp

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
)

// A reader that works on packets while the leg they go to moves finds the socket
// closed that they were to leave by. They leave by the one in its place.
func TestPacketsUnderWayFollowALegThatMoves(t *testing.T) {
	g := newRig(t)
	m := g.session()
	a, _ := m.both(0, g.shared)
	before := g.plane.route(g.legs(m, 0)[1]) // as the reader knows it
	a = &portal{g.socket(), g, a.binder, a.relay}
	a.binder.Start()
	a.bind()
	out := newBatch()
	for _, p := range []string{"two of ", "a size ", "a short"} {
		out.add(before, []byte(p), 7, 0)
	}
	out.add(before, []byte("alone"), 5, 2)
	g.flush(out)
	for _, p := range []string{"two of ", "a size ", "a short", "alone"} {
		a.want([]byte(p))
	}
	if got := g.Traffic(m.ID); got[1] != 26 {
		t.Errorf("carried %v, want 26 bytes of the second leg", got)
	}
	if all := g.cfg.Drops.All(); len(all) != 0 {
		t.Errorf("drops %v", all)
	}

	// Of a session that has ended there is no other way.
	m.end()
	out.add(before, []byte("too late"), 8, 0)
	g.flush(out)
	if n := g.cfg.Drops.Count(drop.UnknownSession); n != 1 {
		t.Errorf("drops %v, want one of an unknown session", g.cfg.Drops.All())
	}
}

// The kernel tells a connected socket once that a packet was refused, in place of
// sending the next one.
func TestRefusedPacketDoesNotCostTheNextOne(t *testing.T) {
	g := newRig(t)
	for name, send := range map[string]func(*route, []byte){
		"alone": func(way *route, p []byte) { g.send(way, p, 0) },
		"in a batch": func(way *route, p []byte) {
			b := newBatch()
			b.add(way, p, len(p), 0)
			g.flush(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			far := newFar(t, g.socket().LocalAddr().(*net.UDPAddr).AddrPort())
			way := far.way(g)
			send(way, []byte("refused"))
			awaitEvent(t, way.out, unix.POLLERR)

			far.hear(g.shared)
			send(way, []byte("taken"))
			awaitEvent(t, far.socket, unix.POLLIN)
			b := newBatch()
			if far.receive(b); b.received != 1 || string(b.payload(0)) != "taken" {
				t.Errorf("%d packets have come", b.received)
			}
			if all := g.cfg.Drops.All(); len(all) != 0 {
				t.Errorf("drops %v", all)
			}
		})
	}
}

func TestLogSaysWhyPacketsAreNotSent(t *testing.T) {
	log := new(record)
	g := tunedRig(t, func(c *Config) {
		c.Listen, c.Log = []netip.Addr{loopback}, slog.New(slog.NewTextHandler(log, nil))
	})
	way := newFar(t, g.shared).way(g)
	for range 100 {
		g.send(way, make([]byte, bufferLen), 0) // longer than a datagram can be
	}
	if n := g.cfg.Drops.Count(drop.SendFailed); n != 100 {
		t.Errorf("drops %v, want 100 that were not sent", g.cfg.Drops.All())
	}
	// 1, 2, 4 and so on, to 64.
	if n := strings.Count(log.String(), unix.EMSGSIZE.Error()); n != 7 {
		t.Errorf("%d lines, want 7:\n%s", n, log)
	}
}

// far is a leg that hears one address, and refuses what comes from any other.
type far struct {
	*socket
	t *testing.T
}

func newFar(t *testing.T, peer netip.AddrPort) far {
	t.Helper()
	f := far{&socket{family: unix.AF_INET, address: loopback}, t}
	if err := f.open(false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	f.hear(peer)
	return f
}

func (f far) hear(peer netip.AddrPort) {
	f.t.Helper()
	if err := unix.Connect(f.fd, sockaddr(peer, f.family)); err != nil {
		f.t.Fatal(err)
	}
}

// way returns a way to f from the shared port, by a socket that no reader has:
// it would take the error.
func (f far) way(g *rig) *route {
	f.t.Helper()
	l := bpf.Leg{Remote: netip.AddrPortFrom(loopback, f.port), Port: g.shared.Port(), Local: loopback}
	s, err := g.Relay.shared[0].connect(l, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.close)
	return newRoute(s, s, l, l, bpf.Terms{}, nil)
}

// awaitEvent waits until poll tells an event of a socket.
func awaitEvent(t *testing.T, s *socket, event int16) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: event}}
	for {
		n, err := unix.Poll(fds, 10_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 || fds[0].Revents&event == 0 {
			t.Fatalf("no event %#x in 10 s: %#x, %v", event, fds[0].Revents, err)
		}
		return
	}
}
