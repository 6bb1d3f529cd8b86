package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// portal is one of two portals on this machine that have a tunnel.
type portal struct {
	*Path
	finder *Finder
	paths  *path.Finder
	tls    *tls.Config
}

var keys = probe.Keys{ToClient: probe.ID{1}, ToServer: probe.ID{2}, Key: probe.Key{3}}

// newPortal returns a portal that calls offer with its candidates.
func newPortal(t testing.TB, client bool, secure *tls.Config, offer func([]wire.Candidate)) *portal {
	t.Helper()
	p := &portal{paths: path.NewFinder(path.Config{Log: slog.New(slog.DiscardHandler)}), tls: secure}
	p.finder = New(Config{
		Paths: p.paths, Log: slog.New(slog.DiscardHandler),
		Server: func() netip.Addr { return netip.MustParseAddr("198.51.100.9") }, Seen: func() netip.Addr { return netip.MustParseAddr("203.0.113.1") },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.paths.Run(ctx) })
	running.Go(func() { p.finder.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	p.Path = p.finder.Open(Tunnel{
		Peer: "peer", Client: client, Keys: keys, TLS: secure, QUIC: &quic.Config{MaxIdleTimeout: time.Minute},
		Offer: offer,
	})
	p.Path.Here()
	t.Cleanup(p.Path.Close)
	return p
}

// pair2 is two portals that tell each other their addresses.
type pair2 [2]*portal

// newPair returns two of which each tells those of some transports, or all.
func newPair(t testing.TB, transports ...wire.CandidateTransport) (both pair2) {
	t.Helper()
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	both = newPairOf(t, func(i int, list []wire.Candidate) {
		mu.Lock()
		defer mu.Unlock()
		if len(transports) > 0 {
			list = slices.DeleteFunc(slices.Clone(list), func(c wire.Candidate) bool { return !slices.Contains(transports, c.Transport) })
		}
		both[1-i].Peer(list)
	})
	return both
}

// newPairOf returns two portals whose candidates are given to offer.
func newPairOf(t testing.TB, offer func(i int, list []wire.Candidate)) (both pair2) {
	t.Helper()
	a := identitytest.New(t)
	configs := [2]*tls.Config{
		a.Credentials(identity.Portal, "ann").ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "factory")),
		a.Credentials(identity.Portal, "factory").ServerTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "ann")),
	}
	for i := range both {
		both[i] = newPortal(t, i == 0, configs[i], func(list []wire.Candidate) { offer(i, list) })
	}
	return both
}

// way waits for a way of one kind.
func (p *portal) way(t testing.TB, kind wire.CarrierKind) (way path.Way) {
	eventually(t, "there is a way of the kind", func() bool {
		list, at := p.Again()
		for i, w := range list {
			if w.Kind() == kind && at[i] == 0 {
				way = w
			}
		}
		return way != nil
	})
	return way
}

// connect makes a connection over the direct way that both have found.
func (both pair2) connect(t testing.TB) (conns [2]*quic.Conn, ways [2]path.Way) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var errs [2]error
	var joined sync.WaitGroup
	for i, p := range both {
		joined.Go(func() {
			if errs[i] = p.Ready(ctx); errs[i] != nil {
				return
			}
			ways[i] = p.way(t, wire.CarrierQUIC)
			conns[i], errs[i] = ways[i].(path.PacketWay).Quic(ctx, i == 0, p.tls, &quic.Config{MaxIdleTimeout: time.Minute})
		})
	}
	joined.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for i := range both {
		ways[i].Taken()
		t.Cleanup(func() { conns[i].CloseWithError(0, "") })
	}
	return conns, ways
}

// carry sends a few bytes from one end to the other.
func carry(t testing.TB, from, to *quic.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := from.OpenUniStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(out, "direct")
		out.Close()
	}()
	in, err := to.AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); err != nil || string(got) != "direct" {
		t.Fatalf("%q, %v", got, err)
	}
}

// nobody is told.
func nobody([]wire.Candidate) {}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for timeout := time.After(20 * time.Second); !holds(); {
		select {
		case <-timeout:
			t.Fatalf("not within 20 s: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// inUse returns the address that a Path's connection goes to.
func inUse(p *Path) (list []netip.AddrPort) {
	for _, x := range p.State().Tries {
		if x.Use == "in use" {
			list = append(list, x.Addr)
		}
	}
	return list
}

func TestTwoPortalsFindADirectWayAndUseIt(t *testing.T) {
	both := newPair(t, wire.CandidateUDP)
	conns, ways := both.connect(t)
	carry(t, conns[0], conns[1])
	carry(t, conns[1], conns[0])
	for i, p := range both {
		mode, addr := p.Mode()
		if ways[i].String() != "direct-udp" || mode != "direct-udp" || ways[i].Connection() != leg.Meeting || p.Relay() != "" {
			t.Errorf("side %d: way %v, mode %s, connection %d, relay %q", i, ways[i], mode, ways[i].Connection(), p.Relay())
		}
		if got := inUse(p.Path); len(got) != 1 || got[0] != addr || addr.Port() != both[1-i].finder.port(addr.Addr()).Local() {
			t.Errorf("side %d: %v in use, %v by Mode", i, got, addr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := p.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("side %d: ready for another connection beside one that is good: %v", i, err)
		}
		cancel()
	}
}

// A connection that ends is followed by another one, on a way that is proven anew.
func TestWayThatIsLostIsFoundAgain(t *testing.T) {
	both := newPair(t)
	conns, _ := both.connect(t)
	asked := both[0].State().Tries
	conns[0].CloseWithError(0, "")
	eventually(t, "both have noticed", func() bool { return len(inUse(both[0].Path))+len(inUse(both[1].Path)) == 0 })
	conns, _ = both.connect(t)
	carry(t, conns[0], conns[1])
	if len(asked) == 0 {
		t.Error("the state shows no address")
	}
}

// A connection that is to be left is followed by another one beside it, on the same way.
func TestConnectionIsReplacedWhileItCarries(t *testing.T) {
	both := newPair(t, wire.CandidateUDP)
	old, _ := both.connect(t)
	for range 2 {
		both[0].Replace()
		next, _ := both.connect(t)
		carry(t, old[0], old[1])
		carry(t, next[0], next[1])
		old[0].CloseWithError(0, "")
		eventually(t, "both have noticed", func() bool { return both[0].conns()+both[1].conns() == 2 })
		carry(t, next[1], next[0])
		old = next
	}
	for i, p := range both {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := p.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("side %d: ready for another connection though none is to be left: %v", i, err)
		}
		cancel()
	}
}

// conns is how many connections over UDP there are.
func (p *Path) conns() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.search.pairs {
		if x.way != nil {
			n += len(x.way.conns)
		}
	}
	return n
}

// The relay's server has no part in it: the client's connection may come before the
// server's side has asked for it.
func TestConnectionIsKeptUntilSomebodyTakesIt(t *testing.T) {
	both := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := both[0].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := both[0].way(t, wire.CarrierQUIC).(path.PacketWay).Quic(ctx, true, both[0].tls, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseWithError(0, "")
	if err := both[1].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	server, err := both[1].way(t, wire.CarrierQUIC).(path.PacketWay).Quic(ctx, false, both[1].tls, &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.CloseWithError(0, "")
	carry(t, server, client)
}

// Who has no address to tell says so, since the machine goes with that; and one whose peer
// is proven to be on this machine names loopback addresses, and probes them.
func TestLoopbackIsNamedToWhoIsHere(t *testing.T) {
	offers := make(chan []wire.Candidate, 10)
	f := New(Config{Paths: path.NewFinder(path.Config{Log: slog.New(slog.DiscardHandler)}), Log: slog.New(slog.DiscardHandler)})
	p := f.Open(Tunnel{Peer: "peer", Keys: keys, QUIC: &quic.Config{}, Offer: func(list []wire.Candidate) { offers <- list }})
	defer p.Close()
	if list := <-offers; len(list) > 0 {
		t.Errorf("%v are named to somebody who may be anywhere", list)
	}
	at := wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: netip.MustParseAddrPort("127.0.0.1:2000")}
	p.Peer([]wire.Candidate{at})
	if s := p.State(); len(s.Tries) > 0 || len(s.Refused) != 1 {
		t.Errorf("on the peer's word alone: %+v", s)
	}
	p.Here()
	list := <-offers
	for _, host := range []string{"127.0.0.1", "::1"} {
		if !slices.ContainsFunc(list, func(c wire.Candidate) bool { return c.Addr.Addr() == netip.MustParseAddr(host) }) {
			t.Errorf("%s is not in %v", host, list)
		}
	}
	if s := p.State(); len(s.Tries) != 1 || s.Tries[0].Addr != at.Addr || len(s.Refused) > 0 {
		t.Errorf("proven: %+v", s)
	}
}

// The counters of keys that are used again follow the clock: none of a Path of then is used again, and what somebody has
// caught then is not answered.
func TestCountersOfLastingKeysFollowTheClock(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	again := keys
	again.ToClient, again.ToServer = probe.ID{8}, probe.ID{9}
	began := time.Now()
	q := p.finder.Open(Tunnel{Peer: "neighbour", Client: true, Keys: again, Lasting: true, QUIC: &quic.Config{}, Offer: nobody})
	defer q.Close()
	q.Here()
	peer := newTalker(t, p)
	say := func(at time.Time, token uint64) {
		peer.say(probe.Probe{Echo: leg.Echo{Token: token, Interval: time.Second}, Counter: clockCounter(at)}.AppendTo(nil, again.ToClient, again.Key))
	}
	say(began.Add(-2*clockApart), 1)
	say(began.Add(-clockApart-time.Minute), 2)
	say(began.Add(-clockApart+time.Minute), 3)
	last := uint32(0)
	for answered := false; !answered; {
		m, err := probe.Open(peer.hear(10*time.Second), again.Key)
		switch {
		case err != nil || m.Counter < clockCounter(began) || m.Counter <= last:
			t.Fatalf("%+v after %d, %v", m, last, err)
		case m.Echo.Answer && m.Echo.Token < 3:
			t.Error("what was caught is answered")
		}
		last, answered = m.Counter, m.Echo.Answer && m.Echo.Token == 3
	}
}

// What the portal learns from its server, and what changes none of its addresses, has nobody
// asked anew: with a connection that is only open each PING of the server's cost fifteen probes.
func TestNothingIsAskedAnewWhereNoAddressHasChanged(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p.Peer([]wire.Candidate{{Transport: wire.CandidateUDP, Addr: silent.LocalAddr().(*net.UDPAddr).AddrPort()}})
	eventually(t, "its own addresses are told", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.told && !p.stale.Load()
	})
	p.mu.Lock()
	x := p.search.pairs[0]
	x.tries, x.due = len(pauses), time.Now().Add(time.Hour) // it has been asked for long
	p.mu.Unlock()
	p.finder.Changed()
	p.offer() // if the Path has not begun to
	eventually(t, "it was looked at", func() bool { return !p.stale.Load() })
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.tries != len(pauses) {
		t.Error("an address is asked anew")
	}
}

func TestClosedPathEndsWhoWaits(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	ended := make(chan error, 1)
	go func() { ended <- p.Ready(context.Background()) }()
	p.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("Ready: %v", err)
	}
	p.Peer([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: netip.MustParseAddrPort("127.0.0.1:2000")}})
	p.Refresh()
	p.Close()
}
