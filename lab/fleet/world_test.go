package fleet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

// Ports of the world.
const (
	outPort     = 7000 // where laptop listens
	servicePort = 7007 // of the service beside factory
)

// world is the network of the package's picture with its daemons. Both portals have joined with tokens.
type world struct {
	*daemon.Network
	lab             *topo.Lab
	relay           *daemon.Relay
	laptop, factory *daemon.Portal
	service         net.Listener // at factory
}

// newWorld makes a world. Options are the server's.
func newWorld(t *testing.T, options ...daemon.Option) *world {
	t.Helper()
	return newWorldAt(t, nil, options...)
}

// newWorldAt is newWorld for a relay with options of its own.
func newWorldAt(t *testing.T, relay []daemon.Option, options ...daemon.Option) *world {
	t.Helper()
	l := topo.New(t)
	w := &world{lab: l}
	home, office := l.Router("home", topo.Symmetric, topo.IPv4Only()), l.Router("office", topo.Symmetric, topo.IPv4Only())
	w.Network = daemon.New(t, l.Public("server"), options...)
	w.relay = w.Relay(l.Public("relay"), relay...)
	w.laptop, w.factory = w.Join(home.Host("laptop")), w.Join(office.Host("factory"))
	w.service = w.factory.Host().Listen(servicePort)
	w.laptop.Host().EchoUDP(servicePort)
	w.Apply(fmt.Sprintf(`
		[[forward]]
		name = "out"
		from = "laptop tcp://127.0.0.1:%d"
		to   = "factory tcp://127.0.0.1:%d"
	`, outPort, servicePort))
	w.laptop.WaitUp("out")
	return w
}

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// connect opens a connection from laptop to factory's service.
func (w *world) connect(t *testing.T) traffic.Pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	client, err := w.laptop.Host().DialContext(ctx, "tcp", local(outPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	await.Limit(t, client)
	p := traffic.Pair{Client: client, Service: await.Accept(t, w.service)}
	await.RoundTrip(t, p.Client, p.Service)
	return p
}

// run starts checked streams both ways over one connection.
func (w *world) run(t *testing.T) *traffic.Traffic {
	t.Helper()
	// A slow one shows a stall as well, and leaves the machine to others for the minutes that it runs.
	beside, err := w.laptop.Host().DialContext(t.Context(), "udp", local(servicePort)) // on laptop itself
	if err != nil {
		t.Fatal(err)
	}
	return traffic.Start(t, traffic.Load{Pairs: []traffic.Pair{w.connect(t)}, Beside: beside.(*net.UDPConn), Rate: 2e6, Block: 4 << 10})
}

// wantWhole ends the traffic, of which nothing may be lost and which may not have stood still.
func wantWhole(t *testing.T, tr *traffic.Traffic) {
	t.Helper()
	o := tr.End()
	if o.Err != nil {
		t.Error(o.Err)
	}
	if most := limit + o.Slack(); o.Stall > most {
		t.Errorf("a stream stood still for %v, at most %v is allowed", o.Stall, most)
	}
	t.Logf("%v, %d MB", o, o.Bytes>>20)
}
