package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// Where the entry portal listens and the service does.
const entryPort, servicePort = 7000, 7007

// network is the package's picture with the server in the broker's place, and a portal on each side: forwards from left to
// a service on right.
type network struct {
	*daemon.Network
	t        *testing.T
	lab      *topo.Lab
	sides    [2]*side
	relay    *daemon.Relay
	portals  [2]*daemon.Portal // entry and exit
	loopback netip.Addr
	service  net.Listener
}

func newNetwork(t *testing.T, p plan) *network {
	t.Helper()
	l := topo.New(t)
	n := &network{t: t, lab: l, loopback: netip.MustParseAddr("127.0.0.1")}
	n.sides = [2]*side{p.home.build(l, "home", "left"), p.office.build(l, "office", "right")}
	server := l.Public("server")
	n.Network = daemon.New(t, server)
	host := l.Public("relay", p.relay...)
	n.relay = n.Relay(host, append([]daemon.Option{inMode(host, p.mode)}, p.config...)...)
	servers := []string{netip.AddrPortFrom(server.Addr4(), 443).String(), netip.AddrPortFrom(server.Addr6(), 443).String()}
	var policy strings.Builder
	for i, s := range n.sides {
		n.portals[i] = n.Portal(s.Host, daemon.Set("servers", servers))
	}
	for _, scheme := range []string{"tcp", "udp"} {
		fmt.Fprintf(&policy, "[[forward]]\nname = %q\n", scheme)
		fmt.Fprintf(&policy, "from = \"left %s://127.0.0.1:%d\"\n", scheme, entryPort)
		fmt.Fprintf(&policy, "to = \"right %s://127.0.0.1:%d\"\n", scheme, servicePort)
	}
	n.Apply(policy.String())
	n.portals[0].WaitUp("tcp")
	n.portals[0].WaitUp("udp")
	n.service = n.sides[1].Listen(servicePort)
	n.sides[1].EchoUDP(servicePort)
	return n
}

// connect opens a connection through the tunnel.
func (n *network) connect() (ends [2]net.Conn) {
	n.t.Helper()
	ends[0] = n.sides[0].Dial("tcp", netip.AddrPortFrom(n.loopback, entryPort))
	await.Limit(n.t, ends[0])
	ends[1] = await.Accept(n.t, n.service)
	await.RoundTrip(n.t, ends[0], ends[1])
	return ends
}

// tryConnect opens a connection through the tunnel and closes it.
func (n *network) tryConnect() error {
	client, err := n.sides[0].DialContext(n.t.Context(), "tcp", netip.AddrPortFrom(n.loopback, entryPort))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := n.service.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	service, err := n.service.Accept()
	if err != nil {
		return err
	}
	return service.Close()
}

// check carries a stream and datagrams through the tunnel.
func (n *network) check() {
	n.t.Helper()
	checkStream(n.t, n.connect(), 1<<20)
	flow := n.sides[0].Dial("udp", netip.AddrPortFrom(n.loopback, entryPort)).(*net.UDPConn)
	await.Limit(n.t, flow)
	await.RoundTrip(n.t, flow, flow) // while a flow is being opened, no more than a few datagrams wait
	report, err := meter.Datagrams{Count: 50, Interval: time.Millisecond, Key: []byte("lab")}.Measure(n.t.Context(), flow, flow)
	if err := errors.Join(err, report.Check()); err != nil || report.Lost > 0 {
		n.t.Errorf("%v, %v", report, err)
	}
}

// path is that of the only tunnel.
func (n *network) path() string {
	n.t.Helper()
	tunnels := n.portals[0].Status().Tunnels
	if len(tunnels) != 1 || !tunnels[0].Up {
		n.t.Fatalf("tunnels %+v, want one that is up", tunnels)
	}
	return tunnels[0].Path
}

// Portals meet in packet mode wherever that goes, and by another way where it does not.
func TestPortalsMeetInPacketMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		plan plan
		path string
	}{
		{"port restricted, symmetric", plan{office: behind(topo.Symmetric)}, "relay-packet"},
		{"carrier-grade", plan{home: carrierGrade(topo.Symmetric, topo.PortRestricted)}, "relay-packet"},
		{"firewalls", plan{home: behind(topo.DropBareSYN, topo.DropUnsolicited), office: behind(topo.WantACK)}, "relay-packet"},
		{"XDP", plan{mode: "xdp"}, "relay-packet"},
		{"IPv6", plan{home: behind(topo.IPv6Only()), office: behind(topo.IPv6Only())}, "relay-packet"},
		{"one version each", plan{home: behind(topo.IPv4Only()), office: behind(topo.IPv6Only())}, "relay"},
		{"a network that lets no packet port out", plan{home: noPacketPorts}, "relay"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t, tt.plan)
			n.check()
			if got := n.path(); got != tt.path {
				t.Errorf("the tunnel's path is %s, want %s", got, tt.path)
			}
		})
	}
}

// noPacketPorts is a site that lets out TCP to the server and to the relay's first ports only.
var noPacketPorts = behind(topo.PortRestricted, topo.AllowTCP(firstPorts()...))

func firstPorts() []uint16 {
	ports := []uint16{443}
	for p := uint16(20000); p < 20100; p++ {
		ports = append(ports, p)
	}
	return ports
}

// A network that shuts packet mode and UDP out costs its portal time once: the way that worked is tried first the next time.
func TestWayThatWorkedIsTriedFirst(t *testing.T) {
	n := newNetwork(t, plan{home: behind(topo.PortRestricted, topo.BlockUDP, topo.AllowTCP(firstPorts()...))})
	var took [2]time.Duration
	for i := range took {
		start := time.Now()
		ends := n.connect()
		took[i] = time.Since(start)
		if got := n.path(); got != "relay" {
			t.Errorf("the tunnel's path is %s, want relay", got)
		}
		n.portals[1].Restart() // which ends the tunnel
		await.Reset(t, "client", ends[0])
		n.portals[0].WaitUp("tcp")
	}
	t.Logf("the first connection took %v, the second %v", took[0], took[1])
	if took[1] > took[0]/2+50*time.Millisecond {
		t.Errorf("the second connection took %v, and the first %v", took[1], took[0])
	}
}

// G5: the relay's daemon and the server go and come under a tunnel in packet mode, whose streams notice nothing.
func TestTunnelOutlivesTheRelaysDaemon(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"tc", "xdp"} {
		t.Run(mode, func(t *testing.T) {
			n := newNetwork(t, plan{mode: mode})
			ends := n.connect()
			if got := n.path(); got != "relay-packet" {
				t.Fatalf("the tunnel's path is %s, want relay-packet", got)
			}
			streamed := make(chan error, 1)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() {
				there, back := meter.Stream{Rate: 50e6}.Exchange(ctx, ends[0], ends[1])
				t.Logf("there: %v", there)
				streamed <- errors.Join(there.Check(), back.Check())
			}()
			n.relay.Kill()
			await.Passing(t, time.Second)
			n.relay.Start()
			n.relay.Restart()
			n.relay.Install(newer)
			n.relay.Restart()
			n.Server.Kill()
			n.relay.Kill()
			n.Server.Start()
			n.relay.Start()
			n.relay.Restart()
			await.Passing(t, time.Second)
			stop()
			if err := <-streamed; err != nil {
				t.Error(err)
			}
			n.check()
		})
	}
}

// F7: the relay's machine is rebooted: what it carried is lost, and new connections are carried soon.
func TestTunnelIsMadeAnewAfterAReboot(t *testing.T) {
	const most = 6 * time.Second
	n := newNetwork(t, plan{})
	n.connect()
	n.relay.Kill()
	n.relay.Host().UnmountBPF()
	n.relay.Host().MountBPF(daemon.User)
	n.relay.Start()
	start := time.Now()
	await.Until(t, "served again", n.tryConnect)
	took := time.Since(start)
	t.Logf("served again after %v", took)
	if took > most {
		t.Errorf("it took %v until the forward worked again, want %v at most", took, most)
	}
	n.check()
}
