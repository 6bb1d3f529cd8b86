package reach

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/dnsmasq"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// remembered is how long a portal may take that finds the server where it was, for its name server is silent: it waits for
// that for 2 s.
const remembered = 4 * time.Second

// company is a network that lets nobody ask a name server outside. Its own knows the server, which outside has
// another address, as is usual where the server is the company's own:
//
//	laptop, names --- company (firewall) ---+--- server, relay, outside
//	                  factory --- office ---+
type company struct {
	*world
	names, outside *topo.Host    // with name servers
	server         *topo.Process // of the company
}

// newCompany makes the network, whose laptop joins by the server's name. The options are the company's router's.
func newCompany(t *testing.T, options ...topo.RouterOption) (*company, *daemon.Portal) {
	t.Helper()
	need.Program(t, "dig")
	l := topo.New(t)
	router, office := l.Router("company", append(options, topo.PortRestricted, topo.BlockPorts(53, 53))...), l.Router("office", topo.PortRestricted)
	c := &company{names: router.Host("names"), outside: l.Public("outside")}
	c.world = &world{t: t, hotel: router, laptop: router.Host("laptop"), office: office.Host("factory")}
	server := l.Public("server")
	c.Network = daemon.New(t, server, daemon.Set("servers", []string{serverName}))
	at := daemon.Set("servers", []string{server.Addr().String()}) // for those who are not in the company
	c.relay = c.Relay(l.Public("relay"), at)
	c.serve()
	dnsmasq.Start(t, c.outside, 53, record(c.outside))
	c.laptop.ShowFile("/etc/resolv.conf", fmt.Sprintf("nameserver %v\n", c.names.Addr()))
	c.factory = c.Portal(c.office, at)
	for _, over := range []string{"+notcp", "+tcp"} {
		asked := await.Exit(t, c.laptop.Command("dig", "@"+c.outside.Addr().String(), over, "+tries=1", "+timeout=1", serverName))
		if asked.Status == 0 {
			t.Errorf("a name server outside answers:\n%s", asked.Stdout)
		}
	}
	return c, c.Join(c.laptop)
}

// serve starts the company's name server.
func (c *company) serve() {
	c.t.Helper()
	c.server = dnsmasq.Start(c.t, c.names, 53, record(c.Server.Host()))
}

// record says that the server's name is that of a host.
func record(host *topo.Host) string {
	return fmt.Sprintf("--host-record=%s,%v,%v", serverName, host.Addr4(), host.Addr6())
}

// TestNamesFromInsideOnly: names are looked up at the network's own name server or not at all. A portal joins and
// forwards, whatever the IP version of what the name leads to is good for; while the name server is away it finds the server
// where it was.
func TestNamesFromInsideOnly(t *testing.T) {
	for _, v := range []struct {
		name    string
		options []topo.RouterOption
	}{
		{"IPv4 and IPv6", nil},
		{"IPv6 leads nowhere", []topo.RouterOption{topo.BlockIPv6}},
		{"IPv4 alone", []topo.RouterOption{topo.IPv4Only()}},
		{"IPv6 alone", []topo.RouterOption{topo.IPv6Only()}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c, laptop := newCompany(t, v.options...)
			t.Logf("connected after %v to %s", c.took(laptop), laptop.Status().Server.Address)
			c.carries(laptop)
			says(t, laptop, "ok name "+serverName+": is ")

			laptop.Stop()
			c.names.SetRules(topo.DropAll)
			laptop.Start()
			took := c.took(laptop)
			t.Logf("connected after %v without a name server", took)
			if took > remembered {
				t.Errorf("connected after %v without a name server, want %v", took, remembered)
			}
			c.carries(laptop)
			says(t, laptop, "warning name "+serverName+": not found: ", "; the server is where it was before")
			c.names.SetRules()
			says(t, laptop, "ok name "+serverName+": is ")
		})
	}
}

// TestNamesComeLate: a portal that has never been there says in one line that it cannot look up the server's name, and comes
// when that can be looked up.
func TestNamesComeLate(t *testing.T) {
	for _, v := range []struct {
		name       string
		away, back func(c *company)
	}{
		{"silent", func(c *company) { c.names.SetRules(topo.DropAll) }, func(c *company) { c.names.SetRules() }},
		{"not running", func(c *company) { c.server.Stop() }, (*company).serve},
	} {
		t.Run(v.name, func(t *testing.T) {
			c, laptop := newCompany(t, topo.IPv4Only())
			laptop.Stop()
			if err := os.RemoveAll(filepath.Join(laptop.Dir(), "state")); err != nil {
				t.Fatal(err)
			}
			v.away(c)
			laptop.Launch()
			line := laptop.WaitLog("dial server " + serverName)
			if strings.Count(line, "lookup "+serverName) != 1 || strings.Contains(line, "UDP:") {
				t.Errorf("the log does not say just that the name cannot be looked up: %s", line)
			}
			if text := strings.Join(strings.Fields(laptop.Run("status")), " "); !strings.Contains(text, ": lookup "+serverName) {
				t.Errorf("status does not say why there is no server:\n%s", text)
			}
			says(t, laptop, "failed name "+serverName+": not found: ", "see to this machine's name servers")
			v.back(c)
			back := time.Now()
			laptop.WaitConnected()
			t.Logf("connected %v after the name server was back", time.Since(back))
			c.carries(laptop)
		})
	}
}
