package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// newPairDialledBy returns two portals of which one knows the other's door and not the reverse.
func newPairDialledBy(t testing.TB, dialler int) (both pair2) {
	t.Helper()
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	both = newPairOf(t, func(i int, list []wire.Candidate) {
		mu.Lock()
		defer mu.Unlock()
		if i == 1-dialler {
			both[dialler].Peer(slices.DeleteFunc(slices.Clone(list), func(c wire.Candidate) bool {
				return c.Transport != wire.CandidateTCP || !c.Addr.Addr().Is4()
			}))
		}
	})
	return both
}

// further returns the way of a portal for a carrier of that number.
func (p *portal) further(t testing.TB, number uint16) path.StreamWay {
	t.Helper()
	list, at := p.Of(number, wire.CarrierTCP)
	if len(list) != 1 || len(at) != 1 || at[0] != 0 || list[0].Connection() != number || list[0].Kind() != wire.CarrierTCP || !list[0].(interface{ Direct() bool }).Direct() {
		t.Fatalf("ways %v at %v for carrier %d", list, at, number)
	}
	return list[0].(path.StreamWay)
}

// follow makes the connection of a number that both have agreed on.
func (both pair2) follow(t testing.TB, number uint16) (conns [2]net.Conn) {
	t.Helper()
	ways := [2]path.StreamWay{both[0].further(t, number), both[1].further(t, number)}
	var errs [2]error
	var joined sync.WaitGroup
	for i := range both {
		joined.Go(func() { conns[i], errs[i] = ways[i].Dial(t.Context()) })
	}
	joined.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for i, c := range conns {
		ways[i].Taken()
		t.Cleanup(func() { c.Close() })
	}
	return conns
}

// A connection is followed by others, each for the number that both have agreed on, whoever of the two can reach
// the other. They carry until the last has ended; then a first one is found again.
func TestConnectionsFollowTheFirst(t *testing.T) {
	for dialler := range 2 {
		both := newPairDialledBy(t, dialler)
		for _, p := range both {
			if list, _ := p.Of(1, wire.CarrierTCP); len(list) > 0 {
				t.Error("one would follow before there is a first")
			}
		}
		all := [][2]net.Conn{both.connectTCP(t)}
		if list, _ := both[0].Of(1, wire.CarrierQUIC); len(list) > 0 {
			t.Error("QUIC would follow TCP")
		}
		first := addrOf(all[0][dialler].RemoteAddr())
		var mu sync.Mutex
		var joined sync.WaitGroup
		for n := uint16(1); n <= 3; n++ {
			joined.Go(func() {
				conns := both.follow(t, n)
				mu.Lock()
				defer mu.Unlock()
				all = append(all, conns)
			})
		}
		joined.Wait()
		for _, conns := range all {
			talk(t, conns)
			if at := addrOf(conns[dialler].RemoteAddr()); at != first {
				t.Errorf("%d dials: the other is reached at %v, and first at %v", dialler, at, first)
			}
		}
		for i, conns := range all {
			if got := inUse(both[dialler].Path); len(got) != 1 || got[0] != first {
				t.Errorf("%d dials: %v in use, want %v", dialler, got, first)
			}
			conns[0].Close()
			conns[1].Close()
			if i == 1 { // the first has gone; another follows what is left
				talk(t, all[3])
				next := both.follow(t, 10)
				talk(t, next)
				next[0].Close()
				next[1].Close()
			}
		}
		for _, p := range both {
			if list, _ := p.Of(20, wire.CarrierTCP); len(list) > 0 {
				t.Errorf("%d dials: one would follow what has ended", dialler)
			}
			p.Refresh() // else it is looked only now and then
		}
		talk(t, both.connectTCP(t))
	}
}

// The connection may be there before the word that it comes, which other bytes hold up.
func TestConnectionWaitsForItsNumber(t *testing.T) {
	both := newPairDialledBy(t, 0)
	both.connectTCP(t)
	var early [2]net.Conn
	for n := range early {
		var err error
		if early[n], err = both[0].further(t, uint16(n+1)).Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer early[n].Close()
	}
	for n := range early {
		late, err := both[1].further(t, uint16(n+1)).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		talk(t, [2]net.Conn{early[n], late})
	}
}

// Where none comes, this portal does without: at once if nobody listens any more, and tries ever more rarely; anew when the
// network has changed.
func TestWhatDoesNotFollowIsTriedEverMoreRarely(t *testing.T) {
	both := newPairDialledBy(t, 0)
	both.connectTCP(t)
	both[1].finder.door(netip.AddrFrom4([4]byte{127, 0, 0, 1})).listener.Close()
	if _, err := both[0].further(t, 1).Dial(t.Context()); err == nil {
		t.Fatal("somebody listens")
	}
	if list, _ := both[0].Of(2, wire.CarrierTCP); len(list) > 0 {
		t.Error("it is tried again at once")
	}
	if len(both[1].further(t, 2).String()) == 0 {
		t.Error("the server does not do as the client wants")
	}
	both[0].Refresh()
	both[0].further(t, 2)
	var f further
	var last, most time.Duration
	for now := time.Now(); now.Before(now.Add(48*time.Hour)) && most < lastFurther; now = f.after {
		f.settle(false, now)
		f.settle(false, now) // of the same time
		last, most = most, f.after.Sub(now)
		if most < last || most > max(2*last, firstFurther) {
			t.Fatalf("a pause of %v after one of %v", most, last)
		}
	}
	if f.settle(true, time.Now()); f.pause != 0 {
		t.Errorf("after success the next pause follows %v", f.pause)
	}
}

// Ports above others come around above those that nobody knocks at.
func TestPortsComeAround(t *testing.T) {
	for _, x := range []struct{ port, far, want uint16 }{
		{40000, 1, 40001}, {40000, 1023, 41023}, {65535, 1, 1024}, {65530, 1000, 2018}, {1024, 0, 1024}, {80, 1, 1025},
	} {
		if got := above(x.port, x.far); got != x.want {
			t.Errorf("%d above %d is %d, want %d", x.far, x.port, got, x.want)
		}
	}
}

// carries has a connection of a hostile TLS client carry at the portal, its server.
func (p *portal) carries(t testing.TB, peer net.Conn) {
	t.Helper()
	peer.Write([]byte{chosen})
	way := p.way(t, wire.CarrierTCP).(path.StreamWay)
	conn, err := way.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	way.Taken()
	t.Cleanup(func() { conn.Close() })
}

// The TLS client may open connections for numbers that it never announces: a few are kept, for a while; what is no number is
// hung up on.
func TestPeerHoldsFewConnectionsThatFollow(t *testing.T) {
	t.Parallel()
	p := newPortal(t, false, nil, nobody)
	p.carries(t, provenAt(t, p, 1))
	for i, word := range [][]byte{{3, 0, 1}, {0}, {chosenFurther, 0xff, 0xff}} {
		c := provenAt(t, p, uint32(100+i))
		c.Write(word)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || timedOut(err) {
			t.Errorf("%x: %v", word, err)
		}
	}
	numbers := func() (list []uint16) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.tcp.further.waiting {
			list = append(list, c.number)
		}
		return list
	}
	var conns []net.Conn
	for n := range uint16(3 * maxWaiting) {
		c := provenAt(t, p, 200+uint32(n))
		c.Write([]byte{chosenFurther, 0, byte(n)})
		eventually(t, "it waits", func() bool { return slices.Contains(numbers(), n) })
		conns = append(conns, c)
	}
	if got, want := numbers(), []uint16{8, 9, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("the numbers %v wait, want %v", got, want)
	}
	if _, err := conns[0].Read(make([]byte, 1)); err == nil || timedOut(err) {
		t.Errorf("the oldest: %v", err)
	}
	for _, c := range conns { // and for no longer than keepTime
		c.SetReadDeadline(time.Now().Add(2 * keepTime))
		if _, err := c.Read(make([]byte, 1)); timedOut(err) {
			t.Error("it is kept for ever")
		}
	}
}

// The TLS client cannot have the server dial, nor knock, more than now and then.
func TestPeerHasFewConnectionsDialled(t *testing.T) {
	asks := 3 * callsAtOnce
	for _, mine := range []bool{true, false} {
		p := newPortal(t, false, nil, nobody)
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if mine { // the server has dialled the first
			p.Peer([]wire.Candidate{{Transport: wire.CandidateTCP, Origin: wire.OriginHost, Addr: addrOf(listener.Addr())}})
			peer, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			b := make([]byte, probe.Len)
			if _, err := io.ReadFull(peer, b); err != nil {
				t.Fatal(err)
			}
			m, err := probe.Open(b, keys.Key)
			if err != nil {
				t.Fatal(err)
			}
			peer.Write(probe.Probe{Echo: leg.Echo{Answer: true, Token: m.Echo.Token, Interval: time.Second}, Counter: 1, Seen: addrOf(peer.RemoteAddr())}.AppendTo(nil, keys.ToServer, keys.Key))
			p.carries(t, peer)
		} else {
			p.carries(t, provenAt(t, p, 1))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		for n := range asks {
			way := p.further(t, uint16(n+1))
			joined.Go(func() {
				if _, err := way.Dial(ctx); errors.Is(err, errCalls) {
					mu.Lock()
					defer mu.Unlock()
					refused++
				}
			})
		}
		eventually(t, "the rest is refused", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return refused == asks-callsAtOnce
		})
		cancel()
		joined.Wait()
		p.search.quota.mu.Lock()
		if n := p.search.quota.total.spent; n > knockCost*callsAtOnce || mine && n > 0 {
			t.Errorf("it has dialled the first: %t; %d probes were spent", mine, n)
		}
		p.search.quota.mu.Unlock()
	}
}

// Who forwards a probe that never arrives holds nobody up: the peer's next one is taken, and the other given up.
func TestForwardedProbeHoldsNobodyUp(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	forwarded := provenAt(t, p, 1)
	waiting := func(n int) {
		t.Helper()
		eventually(t, "it waits", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.tcp.waiting) == n
		})
	}
	waiting(1)
	peer := provenAt(t, p, 2)
	waiting(2)
	way := p.way(t, wire.CarrierTCP).(path.StreamWay)
	conn, err := way.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 1)
	if _, err := io.ReadFull(peer, b); err != nil || b[0] != chosen {
		t.Errorf("the peer got %x, %v", b, err)
	}
	way.Taken()
	if n, err := forwarded.Read(b); n > 0 || err == nil || timedOut(err) {
		t.Errorf("the other got %x, %v", b[:n], err)
	}
}
