// Package reach has the stories of networks that let hardly anything out: portals work from them all the same, and say
// by which way.
//
//	laptop --- hotel (firewall) ---+--- server, relay, proxy
//	                               +--- office (NAT) --- factory
package reach

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// serverName is the name of the server. The laptop can look up nothing.
const serverName = "netport.example.org"

const (
	user     = "laptop"
	password = `hush "hush" \ hush` // whatever happens, nobody is shown it
)

// world is the network of the package's picture.
type world struct {
	*daemon.Network
	t                     *testing.T
	hotel                 *topo.Router
	relay                 *daemon.Relay
	proxy, laptop, office *topo.Host
	factory               *daemon.Portal
}

// newWorld makes a network whose server and relay have one port each that all can reach.
func newWorld(t *testing.T, port uint16) *world {
	t.Helper()
	l := topo.New(t)
	hotel, office := l.Router("hotel", topo.Symmetric, topo.IPv4Only()), l.Router("office", topo.PortRestricted, topo.IPv4Only())
	w := &world{t: t, hotel: hotel, proxy: l.Public("proxy", topo.IPv4Only()), laptop: hotel.Host("laptop"), office: office.Host("factory")}
	w.Network = daemon.New(t, l.Public("server", topo.IPv4Only()), daemon.Set("listen", []string{":443", ":80"}))
	host := l.Public("relay", topo.IPv4Only())
	host.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	w.relay = w.Relay(host, daemon.Set("shared_tcp_port", port), daemon.Set("shared_udp_port", 0))
	w.proxy.ShowFile("/etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%v %s\n", w.Server.Host().Addr(), serverName))
	w.factory = w.Portal(w.office)
	return w
}

// carries fails the test unless the portal carries a megabyte each way, and says that it goes by one of these paths.
func (w *world) carries(laptop *daemon.Portal, paths ...string) {
	w.t.Helper()
	w.Apply("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:8080\"\nto = \"factory tcp://127.0.0.1:80\"\n")
	laptop.WaitUp("web")
	service := w.office.Listen(80)
	client := w.laptop.Dial("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	conn := await.Accept(w.t, service)
	defer conn.Close()
	for _, c := range []interface{ SetDeadline(time.Time) error }{client, conn} {
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	there, back := meter.Stream{Bytes: 1 << 20}.Exchange(w.t.Context(), client, conn)
	for _, report := range []meter.StreamReport{there, back} {
		if err := report.Check(); err != nil {
			w.t.Errorf("%v: %v", err, report)
		}
	}
	text := laptop.Run("status")
	for _, path := range paths {
		if strings.Contains(text, " "+path+" ") {
			return
		}
	}
	w.t.Errorf("status does not say that the tunnel goes by %q:\n%s", paths, text)
}

// TestOnePort: a firewall lets out TCP to one port, and no UDP.
func TestOnePort(t *testing.T) {
	for _, port := range []uint16{443, 80} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			w := newWorld(t, port)
			w.hotel.SetRules(topo.AllowTCP(port), topo.BlockUDP)
			laptop := w.Portal(w.laptop, daemon.Set("servers", []string{w.Server.Host().Addr().String()}))
			w.carries(laptop, "relay-shared", "relay-tls")
		})
	}
}
