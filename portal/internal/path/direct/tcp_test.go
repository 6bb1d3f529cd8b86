package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// connectTCP makes a connection over the way of TCP that both have found.
func (both pair2) connectTCP(t testing.TB) (conns [2]net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var errs [2]error
	var joined sync.WaitGroup
	var ways [2]path.Way
	for i, p := range both {
		joined.Go(func() {
			ways[i] = p.way(t, wire.CarrierTCP)
			conns[i], errs[i] = ways[i].(path.StreamWay).Dial(ctx)
		})
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

// talk sends a few bytes both ways.
func talk(t testing.TB, conns [2]net.Conn) {
	t.Helper()
	for i := range conns {
		if _, err := io.WriteString(conns[i], "direct"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 6)
		conns[1-i].SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(conns[1-i], b); err != nil || string(b) != "direct" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

// Both dial, perhaps at the same time, and both take the one connection that the TLS
// client chooses. When that has ended another one follows.
func TestTwoPortalsFindADirectWayOfTCP(t *testing.T) {
	both := newPair(t)
	for range 3 {
		conns := both.connectTCP(t)
		talk(t, conns)
		for i, p := range both {
			if mode, addr := p.Mode(); mode != "direct-tcp" || addr != addrOf(conns[i].RemoteAddr()) {
				t.Errorf("side %d: mode %s at %v, connected to %v", i, mode, addr, conns[i].RemoteAddr())
			}
			conns[i].Close()
		}
	}
}

// A connection of TCP that comes to nothing does not have the server wait for one of QUIC while the client tries the next.
func TestServerTakesTheNextConnection(t *testing.T) {
	both := newPair(t, wire.CandidateTCP)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ways, _ := both[1].Again()
	gaveUp := make(chan error, 1)
	go func() {
		_, err := ways[0].(path.PacketWay).Quic(ctx, false, both[1].tls, nil)
		gaveUp <- err
	}()
	for i := range 2 {
		if _, err := both[0].way(t, wire.CarrierTCP).(path.StreamWay).Dial(ctx); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := ways[1].(path.StreamWay).Dial(ctx); err != nil {
				t.Fatal(err)
			}
			if len(gaveUp) > 0 {
				t.Fatal("it waits for nothing over UDP though the connection of TCP may come to nothing")
			}
		}
	}
	if err := <-gaveUp; !errors.Is(err, errNone) {
		t.Errorf("it waited for a connection of QUIC: %v", err)
	}
}

// Where UDP is blocked nothing else comes up, so TCP does not wait for it: what the peer names is dialled at once.
func TestTCPDoesNotWaitForUDP(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	p.mu.Lock()
	p.given = []wire.Candidate{{Transport: wire.CandidateTCP, Origin: wire.OriginHost, Addr: netip.MustParseAddrPort("127.0.0.1:2000")}}
	now := time.Now()
	p.listLocked(now)
	for _, k := range p.tcp.knocks {
		if k.due.After(now) {
			t.Errorf("it is dialled after %v", k.due.Sub(now))
		}
	}
	if len(p.tcp.knocks) != 1 {
		t.Errorf("%d addresses are dialled", len(p.tcp.knocks))
	}
	p.mu.Unlock()
}

// dialDoor connects to a portal's door as whoever.
func dialDoor(t testing.TB, p *portal) net.Conn {
	t.Helper()
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	c, err := net.Dial("tcp", netip.AddrPortFrom(loopback, p.finder.door(loopback).port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// provenAt connects to a portal's door with a probe of its peer.
func provenAt(t testing.TB, p *portal, counter uint32) net.Conn {
	t.Helper()
	c := dialDoor(t, p)
	c.Write(probe.Probe{Echo: leg.Echo{Token: 1, Interval: time.Second}, Counter: counter}.AppendTo(nil, p.own, keys.Key))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, probe.Len)); err != nil {
		t.Fatal(err)
	}
	return c
}

// timedOut reports whether a connection is still open: nothing came.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func TestStrangerIsHungUpOnWithoutAWord(t *testing.T) {
	p := newPortal(t, false, nil, nobody)
	ask := func(counter uint32) probe.Probe {
		return probe.Probe{Echo: leg.Echo{Token: 1, Interval: time.Second}, Counter: counter}
	}
	good := ask(1).AppendTo(nil, keys.ToServer, keys.Key)
	first := dialDoor(t, p)
	first.Write(good)
	b := make([]byte, 2*probe.Len)
	first.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.ReadFull(first, b[:probe.Len]); err != nil {
		t.Fatalf("the peer got %d bytes, %v", n, err)
	}
	if m, err := probe.Open(b[:probe.Len], keys.Key); err != nil || !m.Echo.Answer || m.Seen != addrOf(first.LocalAddr()) {
		t.Fatalf("the peer got %+v, %v", m, err)
	}
	answer := probe.Probe{Echo: leg.Echo{Answer: true, Token: 1, Interval: time.Second}, Counter: 5, Seen: netip.MustParseAddrPort("192.0.2.1:1")}
	for name, say := range map[string][]byte{
		"what was caught":       good,
		"another key":           ask(2).AppendTo(nil, keys.ToServer, probe.Key{9}),
		"another id":            ask(3).AppendTo(nil, probe.ID{9}, keys.Key),
		"the other's direction": ask(4).AppendTo(nil, keys.ToClient, keys.Key),
		"an answer":             answer.AppendTo(nil, keys.ToServer, keys.Key),
		"TLS":                   append([]byte{0x16, 3, 1, 2, 0, 1}, make([]byte, 200)...),
	} {
		c := dialDoor(t, p)
		c.Write(say)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(b); n > 0 || timedOut(err) {
			t.Errorf("%s: got %x, %v, want the connection's end", name, b[:n], err)
		}
	}
	mute := dialDoor(t, p)
	mute.SetReadDeadline(time.Now().Add(greetTime + 10*time.Second))
	if n, err := mute.Read(b); n > 0 || timedOut(err) {
		t.Errorf("who says nothing: got %x, %v", b[:n], err)
	}
}

// The peer can open connections and choose none; it gets no more than a few, and who has got hold of its probes keeps it
// from none: what has waited longest gives way.
func TestPeerHoldsFewConnections(t *testing.T) {
	p := newPortal(t, false, nil, nobody)
	var conns []net.Conn
	for i := range 3 * maxProven {
		c := provenAt(t, p, uint32(i+1))
		held := func() (n int) {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, o := range p.tcp.proven {
				if addrOf(o.RemoteAddr()) == addrOf(c.LocalAddr()) {
					n = len(p.tcp.proven)
				}
			}
			return n
		}
		eventually(t, "it is held", func() bool { return held() == min(i+1, maxProven) })
		conns = append(conns, c)
	}
	for i, c := range conns {
		held := i >= len(conns)-maxProven
		if held {
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
		if _, err := c.Read(make([]byte, 1)); timedOut(err) != held {
			t.Errorf("connection %d of %d: %v", i+1, len(conns), err)
		}
	}
	last := conns[len(conns)-1]
	last.Write([]byte{chosen})
	eventually(t, "the one that is chosen has come", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.tcp.waiting) == 1
	})
}
