package carriertest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// Network is a path between two portals in memory, with the time of the test's
// bubble (testing/synctest). Over it go the packets of QUIC, or the bytes of a TCP connection: what
// TCP would lose comes when the path is whole again, as it would be sent again.
type Network struct {
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

// NewNetwork returns a path with a delay, one way, and a rate in bytes a second, each way; 0: without bound.
func NewNetwork(delay time.Duration, rate int) *Network {
	n := &Network{delay: delay, rate: rate, nodes: make(map[string]simnet.PacketReceiver)}
	n.whole.L = &n.mu
	return n
}

const (
	fromClient = 0
	fromServer = 1
	// QueueLen is how many bytes the slow link's queue holds.
	QueueLen = 256 << 10
)

// SetCut has nothing pass from the client, or from the server.
func (n *Network) SetCut(client, server bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = [2]bool{client, server}
	n.whole.Broadcast()
}

// SetMost has packets lost that are longer than so many bytes; 0: none.
func (n *Network) SetMost(most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.most = most
}

// SetLoss has every one of so many packets lost; 0: none.
func (n *Network) SetLoss(lose int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = lose
}

// Pieces is how many packets, or pieces of a TCP connection, were sent.
func (n *Network) Pieces() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[0] + n.sent[1]
}

// arrival is when size bytes that are sent now arrive, and how many bytes are
// before them.
func (n *Network) arrivalLocked(side, size int) (at time.Time, queued int) {
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
func (n *Network) AddNode(addr net.Addr, r simnet.PacketReceiver) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr.String()] = r
}

// SendPacket implements simnet.Router.
func (n *Network) SendPacket(p simnet.Packet) error {
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
	if to := n.nodes[p.To.String()]; to != nil && queued < QueueLen {
		time.AfterFunc(time.Until(at), func() { to.RecvPacket(p) })
	}
	return nil
}

// Join returns two carriers over the network, with HELLO queued. All that they
// need ends with the test.
func (n *Network) Join(t testing.TB, kind wire.CarrierKind) (client, server carrier.Conn) {
	t.Helper()
	atClient, atServer := n.Ends(t, kind)
	client, server, err := both(wire.SessionID{1}, 0,
		func(cfg carrier.Config) (carrier.Conn, error) { return atClient(t.Context(), cfg) },
		func(cfg carrier.Config) (carrier.Conn, error) { return atServer(t.Context(), cfg) })
	if err != nil {
		t.Fatal(err)
	}
	client.SendHello(wire.TunnelHello{})
	server.SendHello(wire.TunnelHello{})
	return client, server
}

// End makes one side's carrier, as soon as that side's handshake is complete. It fills in the certificates.
type End func(ctx context.Context, cfg carrier.Config) (carrier.Conn, error)

// Ends returns both ends of one carrier over the network, which must be called beside each other. All that they need ends
// with the test.
func (n *Network) Ends(t testing.TB, kind wire.CarrierKind) (client, server End) {
	t.Helper()
	cc, sc := TLS(t)
	if kind == wire.CarrierQUIC {
		return n.quicEnds(t, cc, sc)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		n.SetCut(false, false)
		running.Wait()
	})
	a, b := n.tcp(&running)
	end := func(conn net.Conn, conf *tls.Config) End {
		return func(ctx context.Context, cfg carrier.Config) (carrier.Conn, error) {
			cfg.TLS = conf
			return carrier.OverTCP(ctx, conn, cfg)
		}
	}
	return end(a, cc), end(b, sc)
}

func (n *Network) quicEnds(t testing.TB, clientTLS, serverTLS *tls.Config) (client, server End) {
	t.Helper()
	var ends [2]*quic.Transport
	for side := range ends {
		ends[side] = &quic.Transport{Conn: simnet.NewSimConn(addrs[side], n)}
		t.Cleanup(func() {
			ends[side].Close()
			ends[side].Conn.Close()
		})
	}
	l, err := ends[fromServer].Listen(serverTLS, carrier.QUICConfig())
	if err != nil {
		t.Fatal(err)
	}
	client = func(ctx context.Context, cfg carrier.Config) (carrier.Conn, error) {
		conn, err := ends[fromClient].Dial(ctx, addrs[fromServer], clientTLS, carrier.QUICConfig())
		if err != nil {
			return nil, err
		}
		return carrier.OverQUIC(ctx, conn, cfg)
	}
	server = func(ctx context.Context, cfg carrier.Config) (carrier.Conn, error) {
		defer l.Close()
		conn, err := l.Accept(ctx)
		if err != nil {
			return nil, err
		}
		return carrier.OverQUIC(ctx, conn, cfg)
	}
	return client, server
}
