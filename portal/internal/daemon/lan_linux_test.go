package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/netport/netport/portal/internal/network/networktest"
	"github.com/netport/netport/proto/identity"
)

// Neighbours whose grants hold carry on when the Internet is away, even if both begin anew
// without it; a neighbour who does not want to be found is not.
func TestNeighboursNeedNoInternet(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	networktest.Run(t, "ip link set lo up")
	networktest.Run(t, "ip link add hall type veth peer name wall")
	networktest.Run(t, "ip addr add 192.168.7.2/24 dev hall")
	networktest.Run(t, "ip link set wall up")
	networktest.Run(t, "ip link set hall up")
	w := newWorld(t)
	const near = "direct = true\nlan = true\n"
	ann, factory, g := w.pairWith(near)
	bo := w.portal("bo", "direct = true\n")
	target := w.echo("tcp", "127.0.0.1:0")
	other := w.grant(w.permission("shut", "ann", "tcp://"+w.freePort("tcp"), "bo", "tcp://"+target.Addr().String()))
	ann.waitState("shut", Up)

	for _, p := range []*testPortal{ann, factory, bo} {
		p.stop()
	}
	w.stopServer()
	w.relay.close()
	ann, bo = w.run(ann.config, "ann"), w.run(bo.config, "bo")
	w.run(factory.config, "factory")
	w.wait("a tunnel among neighbours", func() bool { return len(ann.Status().Tunnels) == 1 })
	tr := w.transfer(g, size)
	if _, err := tr.ends(); err != nil {
		t.Error(err)
	}
	s := ann.Status().Tunnels[0]
	if s.Peer != "factory" || !strings.HasPrefix(s.Path, "direct") || s.Relay != "" {
		t.Errorf("the tunnel is %+v", s)
	}
	if keys := ann.provenBy("factory"); len(keys) == 0 || slices.ContainsFunc(keys, func(k identity.KeyHash) bool { return k != g.Exit.Key }) {
		t.Errorf("the neighbour is proven by %v, the grant names %v", keys, g.Exit.Key)
	}
	if _, err := w.askFresh(other.Listen.HostPort()); err == nil {
		t.Error("a neighbour that looks for nobody was reached")
	}
	if n := len(bo.Status().Tunnels); n > 0 {
		t.Errorf("it has %d tunnels", n)
	}
}
