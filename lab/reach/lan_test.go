package reach

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// TestNeighboursWithoutInternet: two machines behind one router lose the Internet, are both started again, and what is
// forwarded between them goes on, over their own network.
func TestNeighboursWithoutInternet(t *testing.T) {
	l := topo.New(t)
	home := l.Router("home", topo.PortRestricted, topo.IPv4Only())
	near, far := home.Host("laptop"), home.Host("factory")
	n := daemon.New(t, l.Public("server", topo.IPv4Only()))
	relay := n.Relay(l.Public("relay", topo.IPv4Only()))
	options := []daemon.Option{daemon.Set("direct", true), daemon.Set("lan", true)}
	laptop, factory := n.Portal(near, options...), n.Portal(far, options...)
	n.Apply("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:8080\"\nto = \"factory tcp://127.0.0.1:80\"\n")
	laptop.WaitUp("web")
	factory.WaitUp("web")
	for _, p := range []*daemon.Portal{laptop, factory} {
		p.Stop()
	}
	n.Server.Kill()
	relay.Kill()
	began := time.Now()
	laptop.Launch()
	factory.Launch()
	laptop.WaitLog("carrier up")
	t.Logf("a tunnel %v after the start", time.Since(began))
	if list := laptop.Status().Tunnels; len(list) != 1 || !list[0].Up || !strings.HasPrefix(list[0].Path, "direct") || list[0].Relay != "" {
		t.Errorf("laptop has %+v", list)
	}
	service := far.Listen(80)
	client := near.Dial("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	conn := await.Accept(t, service)
	defer conn.Close()
	for _, c := range []interface{ SetDeadline(time.Time) error }{client, conn} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	there, back := meter.Stream{Bytes: 1 << 20}.Exchange(t.Context(), client, conn)
	for _, report := range []meter.StreamReport{there, back} {
		if err := report.Check(); err != nil {
			t.Errorf("%v: %v", err, report)
		}
	}
}
