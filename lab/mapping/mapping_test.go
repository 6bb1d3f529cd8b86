package mapping

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

const (
	entryPort   = 7000
	servicePort = 7001
)

// world is the network of the package's picture.
type world struct {
	*daemon.Network
	lab             *topo.Lab
	home, office    *topo.Router
	laptop, factory *daemon.Portal
}

// newWorld is a network whose routers are ready for ready, before the portals come.
func newWorld(t *testing.T, ready func(w *world), options ...daemon.Option) *world {
	t.Helper()
	l := topo.New(t, topo.NoCapture())
	w := &world{
		lab:    l,
		home:   l.Router("home", topo.Symmetric, topo.IPv4Only()),
		office: l.Router("office", topo.Symmetric, topo.IPv4Only()),
	}
	ready(w)
	w.Network = daemon.New(t, l.Public("server"))
	w.Relay(l.Public("relay"))
	options = append(options, daemon.Set("direct", true))
	w.laptop, w.factory = w.Portal(w.home.Host("laptop"), options...), w.Portal(w.office.Host("factory"), options...)
	w.Apply(fmt.Sprintf("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:%d\"\nto = \"factory tcp://127.0.0.1:%d\"\n", entryPort, servicePort))
	w.laptop.WaitUp("web")
	return w
}

// meet opens a connection through the tunnel, which opens it.
func (w *world) meet(t *testing.T) (check func()) {
	t.Helper()
	service := w.factory.Host().Listen(servicePort)
	client := w.laptop.Host().Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), entryPort))
	server := await.Accept(t, service)
	check = func() { t.Helper(); await.RoundTrip(t, client, server) }
	check()
	return check
}

// path is what laptop's status says of its path to factory.
func (w *world) path() string {
	for _, tunnel := range w.laptop.Status().Tunnels {
		if tunnel.Up {
			return tunnel.Path
		}
	}
	return ""
}

func (w *world) waitDirect(t *testing.T) {
	t.Helper()
	began := time.Now()
	await.Until(t, "on a direct path", func() error {
		if path := w.path(); !strings.HasPrefix(path, "direct") {
			return fmt.Errorf("the path is %q: %s", path, w.laptop.Run("status"))
		}
		return nil
	})
	t.Logf("on a direct path after %v", time.Since(began))
}

// waitMapped waits until a router maps so many ports.
func waitMapped(t *testing.T, r *topo.Router, n int) {
	t.Helper()
	await.Until(t, fmt.Sprintf("%d ports mapped at %s", n, r.Name()), func() error {
		if rules := mapped(r); len(rules) != n {
			return fmt.Errorf("it maps %q", rules)
		}
		return nil
	})
}

// Two portals behind symmetric NATs find no direct path by themselves. They do by a mapping, whichever way the routers
// know, and leave none behind.
func TestMappingsMakePathsDirect(t *testing.T) {
	for _, by := range []protocol{pcp, pmp, upnp} {
		t.Run(string(by), func(t *testing.T) {
			w := newWorld(t, func(w *world) {
				startMiniupnpd(t, w.home, by)
				startMiniupnpd(t, w.office, by)
			})
			check := w.meet(t)
			w.waitDirect(t)
			check()
			waitMapped(t, w.home, 2) // for UDP and for TCP
			for _, command := range []string{"status", "doctor"} {
				out, _ := w.laptop.Command(command).CombinedOutput() // doctor may have found something else
				if got := string(out); !strings.Contains(got, "("+string(by)+")") {
					t.Errorf("%s does not name %s:\n%s", command, by, got)
				}
			}
			w.laptop.Stop()
			if rules := mapped(w.home); len(rules) != 0 {
				t.Errorf("the portal has stopped, and home still maps %q", rules)
			}
			w.factory.Stop()
			if rules := mapped(w.office); len(rules) != 0 {
				t.Errorf("the portal has stopped, and office still maps %q", rules)
			}
		})
	}
}

// One router is enough; and what a portal's owner does not want is not asked of the other.
func TestOneRouterIsEnough(t *testing.T) {
	w := newWorld(t, func(w *world) {
		startMiniupnpd(t, w.home, pcp)
		startMiniupnpd(t, w.office, pcp)
	}, daemon.Set("port_mapping", false))
	w.factory.Configure("port_mapping", true)
	w.factory.Restart()
	w.laptop.WaitUp("web")
	check := w.meet(t)
	w.waitDirect(t)
	check()
	waitMapped(t, w.office, 2)
	if rules := mapped(w.home); len(rules) != 0 {
		t.Errorf("home maps %q for a portal that wants none", rules)
	}
}

// In another network another router is asked, and what the first maps is taken back while it can still be told.
func TestMappingFollowsTheNetwork(t *testing.T) {
	var mobile *topo.Router
	w := newWorld(t, func(w *world) {
		mobile = w.lab.Router("mobile", topo.Symmetric, topo.IPv4Only())
		startMiniupnpd(t, w.home, pcp)
		startMiniupnpd(t, mobile, upnp)
	})
	host := w.laptop.Host()
	host.Standby(mobile)
	check := w.meet(t)
	w.waitDirect(t)
	waitMapped(t, w.home, 2)
	host.Prefer(true)
	waitMapped(t, mobile, 2)
	waitMapped(t, w.home, 0)
	check()
	w.waitDirect(t)
	check()
}
