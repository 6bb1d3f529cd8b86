package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/tunnel"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// hostile is an entry portal that its owner has rewritten: a proven identity
// of its own, a session that the server has granted, and no rules.
type hostile struct {
	w      *world
	tunnel *tunnel.Tunnel
}

// refuseAll is the Handler of a portal that nobody may open anything on.
type refuseAll struct{}

func (refuseAll) Open(context.Context, tunnel.From, wire.Open) (net.Conn, error) {
	return nil, tunnel.Refuse(wire.ReasonNotGranted, "")
}

// nothing is what a portal has with a peer that it has never met.
type nothing struct{}

func (nothing) Named() (tunnel.Identity, bool)              { return tunnel.Identity{}, false }
func (nothing) Known(wire.TunnelID) (tunnel.Identity, bool) { return tunnel.Identity{}, false }
func (nothing) Doubt(context.Context)                       {}

// hostile connects a portal of that name and opens a tunnel to another, for
// which it has a grant.
func (w *world) hostile(name, to string) *hostile {
	w.Helper()
	own := w.ca.Credentials(identity.Portal, name)
	w.mu.Lock()
	w.parties[name] = grant.Party{Name: name, Key: own.Key()}
	w.mu.Unlock()
	dialer := wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]{Credentials: own, Parse: wire.ParseToPortal, Log: w.log}
	conn, _, err := dialer.Dial(w.Context(), w.address)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	w.Cleanup(func() {
		cancel()
		running.Wait()
	})
	sessions := make(chan wire.Session, 1)
	running.Go(func() {
		conn.Run(ctx, func(m wire.ToPortal) error {
			if s, ok := m.(wire.Session); ok {
				sessions <- s
			}
			return nil
		})
	})
	conn.Send(wire.OpenSession{Request: 1, Peer: to, Transports: path.Transports})
	session := <-sessions
	leg, err := path.NewFinder(path.Config{Credentials: own, Network: network.New(w.log), Log: w.log}).Leg(session, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		w.Fatal(err)
	}
	met, err := meeting.New(meeting.Config{
		Session: session, Leg: leg, TLS: own.ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, to)), Tunnels: nothing{}, Log: w.log,
	}).First(ctx)
	if err != nil {
		w.Fatal(err)
	}
	t := tunnel.New(tunnel.Config{
		Client: true, Handler: refuseAll{}, Budget: tunnel.NewBudget(64 << 20),
		Log: slog.New(slog.DiscardHandler),
	})
	running.Go(func() { t.Run(ctx) })
	if err := t.Attach(met.Conn, met.Way); err != nil {
		w.Fatal(err)
	}
	return &hostile{w, t}
}

// tries opens something in every way there is and returns the reasons.
func (h *hostile) tries(id wire.GrantID, signed []byte) map[string]wire.Reason {
	h.w.Helper()
	ctx, cancel := context.WithTimeout(h.w.Context(), 10*time.Second)
	defer cancel()
	here, there := net.Pipe()
	defer there.Close()
	_, stream := h.tunnel.OpenStream(ctx, id, signed, netip.AddrPort{}, here)
	ended := make(flowEnd, 1)
	_, flow := h.tunnel.OpenFlow(ctx, id, signed, netip.AddrPort{}, []byte("x"), ended)
	if flow == nil {
		flow = <-ended
	}
	_, probe := h.tunnel.Probe(ctx, id, signed)
	reasons := make(map[string]wire.Reason)
	for what, err := range map[string]error{"stream": stream, "flow": flow, "probe": probe} {
		var end *tunnel.EndError
		if errors.As(err, &end) && end.Peer {
			reasons[what] = end.Reason
		} else {
			h.w.Errorf("%s: %v, want the exit's refusal", what, err)
		}
	}
	return reasons
}

type flowEnd chan error

func (flowEnd) Datagram([]byte)   {}
func (e flowEnd) Ended(err error) { e <- err }

// catcher counts what reaches a port, by TCP and UDP, at whatever address of this
// machine.
func (w *world) catcher() (port uint16, caught *atomic.Int64) {
	w.Helper()
	caught = new(atomic.Int64)
	var serving sync.WaitGroup
	w.Cleanup(serving.Wait) // after the sockets are closed
	for _, version := range []string{"4", "6"} {
		l, err := net.Listen("tcp"+version, ":"+strconv.Itoa(int(port)))
		if err != nil && version == "6" { // a machine without IPv6
			continue
		}
		if err != nil {
			w.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		u, err := net.ListenPacket("udp"+version, ":"+strconv.Itoa(int(port)))
		if err != nil {
			w.Fatal(err)
		}
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				caught.Add(1)
				conn.Close()
			}
		})
		serving.Go(func() {
			for {
				if _, _, err := u.ReadFrom(make([]byte, 16)); err != nil {
					return
				}
				caught.Add(1)
			}
		})
		w.Cleanup(func() {
			l.Close()
			u.Close()
		})
	}
	return port, caught
}

// T10, T11: an entry portal without rules reaches what it was granted, and nothing else, by no kind of request.
func TestHostileEntryPortalReachesNothingItWasNotGranted(t *testing.T) {
	w := newWorld(t)
	port, caught := w.catcher()
	echo := w.echo("tcp", "127.0.0.1:0")
	_, factory := w.portal("ann", ""), w.portal("factory", "")
	at := func(host string) string { return "tcp://" + host + ":" + strconv.Itoa(int(port)) }
	anns := w.grant(w.permission("anns", "ann", "tcp://"+w.freePort("tcp"), "factory", at("127.0.0.1")))
	factory.waitState("anns", Up)
	h := w.hostile("mallory", "factory")
	own := w.grant(w.permission("own", "mallory", "tcp://127.0.0.1:1", "factory", "tcp://"+echo.Addr().String()))
	w.wait("factory's grants", func() bool { return len(factory.Status().Forwards) == 2 })

	check := func(what string, id wire.GrantID, signed []byte, want wire.Reason) {
		t.Helper()
		for how, got := range h.tries(id, signed) {
			if got != want {
				t.Errorf("%s, %s: %v, want %v", what, how, got, want)
			}
		}
	}
	check("no grant", wire.GrantID{}, nil, wire.ReasonNotGranted)
	check("ann's grant by its id", anns.ID(), nil, wire.ReasonNotGranted)
	check("ann's grant, stolen", anns.ID(), anns.AppendTo(nil), wire.ReasonNotGranted)
	check("an address for a grant", wire.GrantID{1}, []byte(at("127.0.0.1")), wire.ReasonProtocol)

	hosts := []string{"127.0.0.1", "127.0.0.2", "[::1]"}
	for _, host := range hosts {
		p := own.Permission
		p.Target = endpoint.MustParse(at(host))
		altered := own
		altered.Permission = p
		check("its own grant with another target "+host, altered.ID(), altered.AppendTo(nil), wire.ReasonBadSignature)
		forged := grant.Sign(p, w.stamp).Stamp(w.stamp, time.Now())
		check("signed by the stamp key "+host, forged.ID(), forged.AppendTo(nil), wire.ReasonBadSignature)
		removed := grant.Sign(p, w.policy).Stamp(w.stamp, time.Now())
		check("of a policy that is over "+host, removed.ID(), removed.AppendTo(nil), wire.ReasonGrantRemoved)
		p.Version = w.version + 1
		old := grant.Sign(p, w.policy).Stamp(w.stamp, time.Now().Add(-8*24*time.Hour))
		check("with an old stamp "+host, old.ID(), old.AppendTo(nil), wire.ReasonGrantExpired)
		p.Entry = w.parties["ann"]
		p.Entry.Name = "mallory"
		rekeyed := grant.Sign(p, w.policy).Stamp(w.stamp, time.Now())
		check("with its name and ann's key "+host, rekeyed.ID(), rekeyed.AppendTo(nil), wire.ReasonNotGranted)
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d connections and datagrams reached what was not granted", n)
	}
	// What it was granted works, on the same tunnel, but as a stream only.
	here, there := net.Pipe()
	go h.tunnel.OpenStream(t.Context(), own.ID(), own.AppendTo(nil), netip.AddrPort{}, here)
	if got, err := ask(there, "hello"); got != "hello" {
		t.Errorf("its own grant: %q, %v", got, err)
	}
	there.Close()
	ended := make(flowEnd, 1)
	if _, err := h.tunnel.OpenFlow(t.Context(), own.ID(), nil, netip.AddrPort{}, []byte("x"), ended); err != nil {
		t.Fatal(err)
	}
	var end *tunnel.EndError
	if err := <-ended; !errors.As(err, &end) || end.Reason != wire.ReasonNotGranted {
		t.Errorf("datagrams under a stream's grant: %v", err)
	}
}
