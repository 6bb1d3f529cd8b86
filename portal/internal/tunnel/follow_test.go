package tunnel

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// numbers is an end of a flow, in a bubble: it takes datagrams that are numbered, and knows what became of them. It is a
// Sink.
type numbers struct {
	mu   sync.Mutex
	last time.Time
	gap  time.Duration  // the longest without one
	came map[uint32]int // how often
}

func (n *numbers) Datagram(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.gap, n.last = max(n.gap, now.Sub(n.last)), now
	n.came[binary.BigEndian.Uint32(b)]++
}

func (n *numbers) Ended(error) {}

// measure has the longest gap counted from now on.
func (n *numbers) measure() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gap = 0
}

// want wants the numbers up to sent to have come, once each, with no longer gap between two.
func (n *numbers) want(t *testing.T, what string, sent uint32, gap time.Duration) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	lost, twice := 0, 0
	for i := range sent {
		switch c := n.came[i]; {
		case c == 0:
			lost++
		case c > 1:
			twice++
		}
	}
	if lost > 0 || twice > 0 || n.gap > gap {
		t.Errorf("%s: of %d datagrams %d are lost, %d came twice, the longest gap is %v, want %v", what, sent, lost, twice, n.gap, gap)
	}
}

const callEvery = 5 * time.Millisecond

// call is a flow, in a bubble, on which both ends send a datagram every callEvery, beside a stream that both ends fill with
// so many bits a second.
type call struct {
	running     sync.WaitGroup
	over        chan struct{}
	there, back numbers
	sent        [2]uint32
	hangUp      func()
}

// calls is a Handler that hands the far ends of what it opens to the test.
type calls chan net.Conn

func (c calls) Open(context.Context, From, wire.Open) (net.Conn, error) {
	x, y := net.Pipe()
	c <- y
	return x, nil
}

// call begins a call.
func (p *pair) call(exit calls, bits int) *call {
	p.t.Helper()
	c := &call{over: make(chan struct{}), there: numbers{came: make(map[uint32]int)}, back: numbers{came: make(map[uint32]int)}}
	app, other := net.Pipe()
	done := openWith(p.client, benchGrant, other)
	target := <-exit
	for _, conn := range []net.Conn{app, target} {
		c.running.Go(func() { io.Copy(io.Discard, conn) })
		c.running.Go(func() {
			c.every(func(uint32) { conn.Write(make([]byte, bits/8*int(callEvery)/int(time.Second))) })
			conn.Close()
		})
	}
	first := binary.BigEndian.AppendUint32(nil, 0)
	f, err := p.client.OpenFlow(p.t.Context(), benchGrant, nil, netip.AddrPort{}, first, &c.back)
	if err != nil {
		p.t.Fatal(err)
	}
	udp := <-exit
	var reading sync.WaitGroup
	reading.Go(func() {
		for b := make([]byte, 1500); ; {
			n, err := udp.Read(b)
			if err != nil {
				return
			}
			c.there.Datagram(b[:n])
		}
	})
	c.running.Go(func() {
		c.sent[0] = 1 + c.every(func(n uint32) { f.Send(binary.BigEndian.AppendUint32(nil, n+1)) })
	})
	c.running.Go(func() {
		c.sent[1] = c.every(func(n uint32) { udp.Write(binary.BigEndian.AppendUint32(nil, n)) })
	})
	c.hangUp = func() {
		close(c.over)
		c.running.Wait()
		time.Sleep(time.Second) // what is under way
		udp.Close()
		reading.Wait()
		<-done
	}
	return c
}

// every does something every callEvery until the call is over, and returns how often.
func (c *call) every(do func(n uint32)) (n uint32) {
	tick := time.NewTicker(callEvery)
	defer tick.Stop()
	for ; ; n++ {
		select {
		case <-c.over:
			return n
		case <-tick.C:
			do(n)
		}
	}
}

// join gives both tunnels a carrier over a network as meetings do: the client has it when its handshake is complete, the
// server when the client's HELLO has come.
func (p *pair) join(n *carriertest.Network, kind wire.CarrierKind, session wire.SessionID, number uint16, way Way) {
	p.t.Helper()
	client, server := n.Ends(p.t, kind)
	cfg := carrier.Config{Session: session, Connection: number}
	var both sync.WaitGroup
	both.Go(func() {
		cfg := cfg
		cfg.Client = true
		c, err := client(p.t.Context(), cfg)
		if err == nil {
			c.SendHello(wire.TunnelHello{})
			err = p.client.Attach(c, way)
		}
		if err != nil {
			p.t.Error(err)
		}
	})
	both.Go(func() {
		c, err := server(p.t.Context(), cfg)
		if err == nil {
			_, err = c.AwaitHello(p.t.Context())
		}
		if err == nil {
			c.SendHello(wire.TunnelHello{})
			err = p.server.Attach(c, way)
		}
		if err != nil {
			p.t.Error(err)
		}
	})
	both.Wait()
}

// A change of paths that both work costs datagrams nothing: none is lost or doubled, and none is late, though the streams
// beside them, which move at once, fill what a new connection may send.
func TestDatagramsNoticeNoChangeOfPathsThatWork(t *testing.T) {
	const slow, quick = 50 * time.Millisecond, 30 * time.Millisecond
	first, second := wire.SessionID{8}, wire.SessionID{9}
	direct := theWay{direct: true}
	for name, tt := range map[string]struct {
		relay, other time.Duration // one way
		change       func(p *pair, other *carriertest.Network)
		after        time.Duration // it is over
		direct       bool          // where flows are then
	}{
		"a direct path over QUIC": {slow, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierQUIC, second, 0, direct)
		}, 2 * settleTime, true},
		"over TCP": {slow, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierTCP, second, 0, direct)
		}, 2 * settleTime, true},
		"over both": {slow, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierTCP, second, 0, direct)
			p.join(other, wire.CarrierQUIC, second, 1, direct)
		}, 2 * settleTime, true},
		"a direct path that is left because it is slow": {quick, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierQUIC, second, 0, direct)
		}, slowAfter + 4*settleTime, false},
		"a direct path that the policy forbids": {slow, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierQUIC, second, 0, direct)
			time.Sleep(3 * settleTime)
			p.client.SetPaths(grant.DirectNever)
			p.server.SetPaths(grant.DirectNever)
		}, 2 * settleTime, false},
		"a session that is replaced": {slow, slow, func(p *pair, other *carriertest.Network) {
			p.join(other, wire.CarrierTCP, second, 0, theWay{})
			p.join(other, wire.CarrierQUIC, second, 1, theWay{})
			p.client.Retire(first, wire.ReasonReplaced)
			p.server.Retire(first, wire.ReasonReplaced)
		}, 2 * settleTime, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				exit := make(calls, 2)
				p := newBarePair(t, exit, nil, alone)
				relay := carriertest.NewNetwork(tt.relay, 0)
				p.join(relay, wire.CarrierTCP, first, 0, theWay{})
				p.join(relay, wire.CarrierQUIC, first, 1, theWay{})
				c := p.call(exit, 8e6)
				time.Sleep(2 * time.Second)
				c.there.measure()
				c.back.measure()
				tt.change(p, carriertest.NewNetwork(tt.other, 0))
				time.Sleep(tt.after)
				for _, tun := range []*Tunnel{p.client, p.server} {
					if _, _, flows := onDirect(tun); flows != tt.direct {
						t.Errorf("flows take the direct path: %v", flows)
					}
				}
				c.hangUp()
				gap := tt.other - tt.relay + 2*callEvery
				c.there.want(t, "there", c.sent[0], gap)
				c.back.want(t, "back", c.sent[1], gap)
				p.stopAndDrain()
			})
		})
	}
}
