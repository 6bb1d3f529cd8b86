package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// TestOnlyTheProvenNameCounts (T9): of the four pairs of a certificate and of the name
// in what is shown, two are honest. The others are refused, and kept under the
// name of the certificate.
func TestOnlyTheProvenNameCounts(t *testing.T) {
	w := newWorld(t)
	echo := w.echo("tcp", "127.0.0.1:0")
	factory := w.portal("factory", "")
	w.wait("factory connected", func() bool { return factory.Status().Server.Connected })
	portals, own := make(map[string]*hostile), make(map[string]grant.Grant)
	for i, name := range []string{"ann", "mallory"} {
		portals[name] = w.hostile(name, "factory")
		own[name] = w.grant(w.permission(name+"s", name, "tcp://127.0.0.1:"+strconv.Itoa(i+1), "factory", "tcp://"+echo.Addr().String()))
	}
	w.wait("factory's grants", func() bool { return len(factory.Status().Forwards) == 2 })
	for certificate, h := range portals {
		for message, g := range own {
			if certificate != message {
				for how, got := range h.tries(g.ID(), g.AppendTo(nil)) {
					if got != wire.ReasonNotGranted {
						t.Errorf("%s with the grant of %s, %s: %v", certificate, message, how, got)
					}
				}
				continue
			}
			here, there := net.Pipe()
			go h.tunnel.OpenStream(t.Context(), g.ID(), g.AppendTo(nil), netip.AddrPort{}, here)
			if got, err := ask(there, "hello"); got != "hello" {
				t.Errorf("%s with its own grant: %q, %v", certificate, got, err)
			}
			there.Close()
		}
	}
	refused := make(map[string]int)
	for _, r := range factory.Status().Refusals {
		refused[r.Peer]++
		if !strings.Contains(r.Text, "the peer is the portal "+r.Peer) {
			t.Errorf("kept for %s: %s", r.Peer, r.Text)
		}
	}
	if refused["ann"] != 1 || refused["mallory"] != 1 {
		t.Errorf("refusals kept by peer: %v", refused)
	}
}

// TestSecondTargetsOfAnApprovedTunnelAreRefused (T10, T11): a tunnel with a granted stream
// open on it is no way to other addresses, in whatever form they are asked for, nor
// to other kinds, nor back.
func TestSecondTargetsOfAnApprovedTunnelAreRefused(t *testing.T) {
	w := newWorld(t)
	port, caught := w.catcher()
	echo := w.echo("tcp", "127.0.0.1:0")
	factory := w.portal("factory", "")
	w.wait("factory connected", func() bool { return factory.Status().Server.Connected })
	h := w.hostile("mallory", "factory")
	own := w.grant(w.permission("own", "mallory", "tcp://127.0.0.1:1", "factory", "tcp://"+echo.Addr().String()))
	back := w.grant(w.permission("back", "factory", "tcp://"+w.freePort("tcp"), "mallory", "tcp://127.0.0.1:"+strconv.Itoa(int(port))))
	w.wait("factory's grants", func() bool { return len(factory.Status().Forwards) == 2 })
	here, there := net.Pipe()
	defer there.Close()
	go h.tunnel.OpenStream(t.Context(), own.ID(), own.AppendTo(nil), netip.AddrPort{}, here)
	if got, err := ask(there, "hello"); got != "hello" {
		t.Fatalf("its own grant: %q, %v", got, err)
	}
	at := ":" + strconv.Itoa(int(port))
	targets := []string{"unix:///tmp/np-nothing", "udp://127.0.0.1" + at, "tcp://localhost" + at}
	for _, host := range append(addresses(t), "127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "[::1]", "[::]") {
		targets = append(targets, "tcp://"+host+at)
	}
	for _, target := range targets {
		e, err := endpoint.Parse(target)
		if err != nil {
			t.Logf("%s cannot even be said: %v", target, err)
			continue
		}
		p := own.Permission
		p.Target = e
		if e.Datagram() {
			p.Listen = endpoint.MustParse("udp://127.0.0.1:1")
		}
		altered := own
		altered.Permission = p
		for what, try := range map[string]struct {
			id     wire.GrantID
			signed []byte
			want   []wire.Reason
		}{
			"its grant with another target":          {altered.ID(), altered.AppendTo(nil), []wire.Reason{wire.ReasonBadSignature, wire.ReasonProtocol}},
			"the other's bytes under its grant's id": {own.ID(), altered.AppendTo(nil), []wire.Reason{wire.ReasonNone, wire.ReasonNotGranted}},
			"the address as a grant":                 {wire.GrantID{9}, []byte(target), []wire.Reason{wire.ReasonProtocol}},
		} {
			if try.want[0] == wire.ReasonNone { // it is its own grant that counts: that may be opened
				h.datagramsOnly(try.id, try.signed)
				continue
			}
			for how, got := range h.tries(try.id, try.signed) {
				if !slices.Contains(try.want, got) {
					t.Errorf("%s: %s, %s: %v", target, what, how, got)
				}
			}
		}
	}
	for how, got := range h.tries(back.ID(), back.AppendTo(nil)) {
		if got != wire.ReasonNotGranted {
			t.Errorf("the other direction's grant, %s: %v", how, got)
		}
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d connections and datagrams reached what was not granted", n)
	}
	if got, err := ask(there, "still"); got != "still" {
		t.Errorf("what is granted: %q, %v", got, err)
	}
}

// datagramsOnly opens a flow under a stream's grant, which is refused.
func (h *hostile) datagramsOnly(id wire.GrantID, signed []byte) {
	h.w.Helper()
	ended := make(flowEnd, 1)
	if _, err := h.tunnel.OpenFlow(h.w.Context(), id, signed, netip.AddrPort{}, []byte("x"), ended); err != nil {
		h.w.Error(err)
		return
	}
	if err := <-ended; !strings.Contains(err.Error(), wire.ReasonNotGranted.String()) {
		h.w.Errorf("datagrams under a stream's grant: %v", err)
	}
}

// addresses are those of this machine.
func addresses(t *testing.T) (list []string) {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !ok || ip.IsLinkLocalUnicast() {
			continue
		}
		if ip = ip.Unmap(); ip.Is6() {
			list = append(list, "["+ip.String()+"]")
		} else {
			list = append(list, ip.String())
		}
	}
	return list
}

// lines is a log that can be searched.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

// has reports whether a line has all the parts.
func (l *lines) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

// TestStolenSessionIsOfNoUse (T12): somebody who has the whole of another's session, its
// id, its leg and the leg's secret, meets the other portal at the relay and is no
// peer for it, on either side of the handshake.
func TestStolenSessionIsOfNoUse(t *testing.T) {
	w := newWorld(t)
	var log lines
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	factory := w.portal("factory", "")
	w.wait("factory connected", func() bool { return factory.Status().Server.Connected })
	own := w.ca.Credentials(identity.Portal, "mallory")
	w.mu.Lock()
	w.parties["ann"] = grant.Party{Name: "ann", Key: identity.KeyHash{1}}
	w.mu.Unlock()
	const tries = 50
	for i := range tries {
		opener, other := "ann", "factory"
		if i%2 == 1 {
			opener, other = "factory", "ann"
		}
		w.mu.Lock()
		s := w.sessionLocked(w.relay, opener, other, path.Transports, wire.SessionID{})
		w.conns["factory"].Send(s.told["factory"])
		stolen := s.told["ann"]
		w.mu.Unlock()
		leg, err := path.NewFinder(path.Config{Credentials: own, Network: network.New(w.log), Log: w.log}).Leg(stolen, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		tls := own.ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "factory"))
		if stolen.Leg != 0 {
			tls = own.ServerTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "factory"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		met, err := meeting.New(meeting.Config{Session: stolen, Leg: leg, TLS: tls, Tunnels: nothing{}, Log: slog.New(slog.DiscardHandler)}).First(ctx)
		if err == nil {
			// A TLS client may have finished its part before it hears of the refusal.
			_, err = met.Conn.AwaitHello(ctx)
		}
		if err == nil {
			t.Errorf("try %d: a carrier was proven", i)
		}
		cancel()
		leg.Close()
		w.mu.Lock()
		w.endLocked(pairOf("ann", "factory"), "", wire.ReasonShutdown)
		w.mu.Unlock()
	}
	if got := factory.Status().Tunnels; len(got) > 0 && got[0].Up {
		t.Errorf("tunnels %+v", got)
	}
	who := fmt.Sprintf(`peer is %s (key %s), expected the name \"ann\"`, own.ID, own.Key())
	w.wait("factory to say who it really was: "+who, func() bool { return log.count(who) >= tries/2 })
	if log.count("carrier up") != 0 {
		t.Error("a carrier was taken")
	}
}
