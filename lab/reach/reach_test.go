// Package reach has the stories of networks that let hardly anything out: portals work from them all the same, and say
// by which way.
//
//	laptop --- hotel (firewall) ---+--- server, relay, proxy
//	                               +--- office (NAT) --- factory
package reach

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
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
	service               net.Listener // at the factory, once something was carried
}

// newWorld makes a network whose server and relay have one port each that all can reach. The options are the server's.
func newWorld(t *testing.T, port uint16, options ...daemon.Option) *world {
	t.Helper()
	l := topo.New(t)
	hotel, office := l.Router("hotel", topo.Symmetric, topo.IPv4Only()), l.Router("office", topo.PortRestricted, topo.IPv4Only())
	w := &world{t: t, hotel: hotel, proxy: l.Public("proxy", topo.IPv4Only()), laptop: hotel.Host("laptop"), office: office.Host("factory")}
	server, host := l.Public("server", topo.IPv4Only()), l.Public("relay", topo.IPv4Only())
	for _, h := range []*topo.Host{w.proxy, w.office, host} {
		h.ShowFile("/etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%v %s\n", server.Addr(), serverName))
	}
	w.Network = daemon.New(t, server, append(options, daemon.Set("listen", []string{":443", ":80"}))...)
	host.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	w.relay = w.Relay(host, daemon.Set("shared_tcp_port", port), daemon.Set("shared_udp_port", 0))
	w.factory = w.Portal(w.office)
	return w
}

// carries fails the test unless the portal carries a megabyte each way, and says that it goes by one of these paths, if
// there are any.
func (w *world) carries(laptop *daemon.Portal, paths ...string) {
	w.t.Helper()
	w.Apply("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:8080\"\nto = \"factory tcp://127.0.0.1:80\"\n")
	laptop.WaitUp("web")
	if w.service == nil {
		w.service = w.office.Listen(80)
	}
	client := w.laptop.Dial("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	defer client.Close()
	conn := await.Accept(w.t, w.service)
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
	if len(paths) > 0 && !slices.ContainsFunc(paths, func(path string) bool { return strings.Contains(text, " "+path+" ") }) {
		w.t.Errorf("status does not say that the tunnel goes by %q:\n%s", paths, text)
	}
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
