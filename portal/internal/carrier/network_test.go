package carrier_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// network is a path between two portals in memory, with the time of the test's
// bubble. Over it go the packets of QUIC, or the bytes of a TCP connection: what
// TCP would lose comes when the path is whole again, as it would be sent again.
type network struct {
	delay time.Duration // one way
	rate  int           // bytes a second each way; 0: no limit

	mu    sync.Mutex
	whole sync.Cond
	cut   [2]bool      // nothing passes from the client (0), from the server (1)
	most  int          // longer packets are lost; 0: none
	lose  int          // every one of so many packets is lost; 0: none
	free  [2]time.Time // when the link has sent what it was given
	nodes map[string]simnet.PacketReceiver
	sent  [2]int // packets, or pieces of the TCP connection
}

func newNetwork(delay time.Duration, rate int) *network {
	n := &network{delay: delay, rate: rate, nodes: make(map[string]simnet.PacketReceiver)}
	n.whole.L = &n.mu
	return n
}

const (
	fromClient = 0
	fromServer = 1
	// queueLen is how many bytes the slow link's queue holds.
	queueLen = 256 << 10
)

func (n *network) setCut(client, server bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = [2]bool{client, server}
	n.whole.Broadcast()
}

func (n *network) setMost(most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.most = most
}

func (n *network) setLoss(lose int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = lose
}

func (n *network) pieces() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[0] + n.sent[1]
}

// arrival is when size bytes that are sent now arrive, and how many bytes are
// before them.
func (n *network) arrivalLocked(side, size int) (at time.Time, queued int) {
	now := time.Now()
	n.sent[side]++
	if n.rate == 0 {
		return now.Add(n.delay), 0
	}
	if n.free[side].Before(now) {
		n.free[side] = now
	}
	queued = int(n.free[side].Sub(now).Seconds() * float64(n.rate))
	n.free[side] = n.free[side].Add(time.Duration(size) * time.Second / time.Duration(n.rate))
	return n.free[side].Add(n.delay), queued
}

var addrs = [2]*net.UDPAddr{{IP: net.IPv4(192, 0, 2, 1), Port: 1}, {IP: net.IPv4(192, 0, 2, 2), Port: 2}}

// AddNode implements simnet.Router.
func (n *network) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr.String()] = r
}

// SendPacket implements simnet.Router.
func (n *network) SendPacket(p simnet.Packet) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	side := fromClient
	if p.From.String() == addrs[fromServer].String() {
		side = fromServer
	}
	if n.cut[side] || n.most > 0 && len(p.Data) > n.most {
		return nil
	}
	at, queued := n.arrivalLocked(side, len(p.Data))
	if n.lose > 0 && n.sent[side]%n.lose == 0 {
		return nil
	}
	if to := n.nodes[p.To.String()]; to != nil && queued < queueLen {
		time.AfterFunc(time.Until(at), func() { to.RecvPacket(p) })
	}
	return nil
}

// piece is a part of a TCP connection's bytes, and when it arrives.
type piece struct {
	b  []byte
	at time.Time
}

// tcp returns the two ends of a connection over the network.
func (n *network) tcp(running *sync.WaitGroup) (client, server net.Conn) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	for side, way := range []struct{ from, to net.Conn }{{near, far}, {far, near}} {
		under := make(chan piece, 64) // what may be under way: the socket's buffer
		running.Go(func() {
			defer close(under)
			for {
				b := make([]byte, 4<<10)
				m, err := way.from.Read(b)
				if err != nil {
					return
				}
				n.mu.Lock()
				at, _ := n.arrivalLocked(side, m)
				n.mu.Unlock()
				under <- piece{b[:m], at}
			}
		})
		running.Go(func() {
			defer way.to.Close()
			for p := range under {
				<-time.After(time.Until(p.at))
				n.mu.Lock()
				for n.cut[side] {
					n.whole.Wait()
				}
				n.mu.Unlock()
				if _, err := way.to.Write(p.b); err != nil {
					break
				}
			}
			way.from.Close()
			for range under {
				// Until the reader has seen the end.
			}
		})
	}
	return client, server
}

// join returns two carriers over the network, with HELLO queued. All that they
// need ends with the test.
func (n *network) join(t *testing.T, kind wire.CarrierKind) (client, server carrier.Conn) {
	t.Helper()
	cc, sc := carriertest.TLS(t)
	var running sync.WaitGroup
	t.Cleanup(func() {
		n.setCut(false, false)
		running.Wait()
	})
	var err error
	if kind == wire.CarrierTCP {
		a, b := n.tcp(&running)
		client, server, err = carriertest.OverTCP(t.Context(), a, b, cc, sc, wire.SessionID{1}, 0)
	} else {
		var ends [2]*quic.Transport
		for side := range ends {
			ends[side] = &quic.Transport{Conn: simnet.NewSimConn(addrs[side], n)}
			t.Cleanup(func() {
				ends[side].Close()
				ends[side].Conn.Close()
			})
		}
		var a, b *quic.Conn
		a, b, err = carriertest.JoinQUIC(context.Background(), ends[fromClient], ends[fromServer], cc, sc)
		if err == nil {
			client, server, err = carriertest.OverQUIC(t.Context(), a, b, wire.SessionID{1}, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	client.SendHello(wire.TunnelHello{})
	server.SendHello(wire.TunnelHello{})
	return client, server
}
