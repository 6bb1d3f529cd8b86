package reach

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// relayUser is whom a relay runs as that shares a machine with the server, which runs as daemon.User.
const relayUser = "daemon"

// shared is a machine with a server and a relay, as two users, of which port 443 can be reached over TCP, and no more:
//
//	laptop --- hotel (firewall) ---+--- machine
//	factory --- office (firewall) -+
type shared struct {
	*daemon.Network
	t               *testing.T
	machine         *topo.Host
	relay           *daemon.Relay
	laptop, factory *daemon.Portal
	service         net.Listener
}

// newShared makes the machine, with relay options, and has the firewalls keep to more rules.
func newShared(t *testing.T, rules []topo.Rule, options ...daemon.Option) *shared {
	t.Helper()
	l := topo.New(t)
	hotel, office := l.Router("hotel", topo.Symmetric, topo.IPv4Only()), l.Router("office", topo.PortRestricted, topo.IPv4Only())
	s := &shared{t: t, machine: l.Public("machine", topo.IPv4Only())}
	run := filepath.Join(s.machine.Dir(), "run") // as systemd makes /run/netport-relay
	s.machine.Run("install", "-d", "-o", relayUser, "-m", "0755", run)
	socket := filepath.Join(run, "shared.sock")
	s.Network = daemon.New(t, s.machine, daemon.Set("hand_over", socket))
	s.relay = s.Relay(s.machine, append([]daemon.Option{daemon.As(relayUser), daemon.Set("shared_tcp_port", 443), daemon.Set("shared_udp_port", 0),
		daemon.Set("take_over", socket), daemon.Set("take_over_from", daemon.User)}, options...)...)
	for _, router := range []*topo.Router{hotel, office} {
		router.SetRules(append([]topo.Rule{topo.AllowTCP(443), topo.BlockUDP}, rules...)...)
	}
	laptop, factory := hotel.Host("laptop"), office.Host("factory")
	s.laptop, s.factory = s.Portal(laptop), s.Portal(factory)
	s.service = factory.Listen(80)
	factory.EchoUDP(80)
	s.Apply(`[[forward]]
name = "web"
from = "laptop tcp://127.0.0.1:8080"
to = "factory tcp://127.0.0.1:80"
[[forward]]
name = "measure"
from = "laptop udp://127.0.0.1:8080"
to = "factory udp://127.0.0.1:80"
`)
	s.laptop.WaitUp("web")
	s.laptop.WaitUp("measure")
	return s
}

// stream is a connection through the forward, which has carried something each way.
func (s *shared) stream() (client, service net.Conn) {
	s.t.Helper()
	client = s.laptop.Host().Dial("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	await.Limit(s.t, client)
	service = await.Accept(s.t, s.service)
	await.RoundTrip(s.t, client, service)
	return client, service
}

// measure fails the test unless a megabyte each way, and datagrams, arrive as they were sent.
func (s *shared) measure(client, service net.Conn) {
	s.t.Helper()
	there, back := meter.Stream{Bytes: 1 << 20}.Exchange(s.t.Context(), client, service)
	for _, report := range []meter.StreamReport{there, back} {
		if err := report.Check(); err != nil {
			s.t.Errorf("%v: %v", err, report)
		}
	}
	flow := s.laptop.Host().Dial("udp", netip.MustParseAddrPort("127.0.0.1:8080"))
	await.RoundTrip(s.t, flow, flow)
	datagrams := meter.Datagrams{Count: 100, Interval: time.Millisecond, Key: []byte("lab")}
	report, err := datagrams.Measure(s.t.Context(), flow, flow.(*net.UDPConn))
	if err != nil || report.Check() != nil || report.Lost > 0 {
		s.t.Errorf("%v, %v", report, err)
	}
}

var holder = regexp.MustCompile(`pid=(\d+)`)

// held returns how many connections at port 443 each process of the machine holds. It fails where one is on its way from
// one to another: then both hold it, or none.
func (s *shared) held() (map[int]int, error) {
	s.t.Helper()
	list := await.Success(s.t, s.machine.Command("ss", "--no-header", "--tcp", "--numeric", "--processes", "state", "established", "sport", "=", ":443"))
	held := make(map[int]int)
	for line := range strings.Lines(list) {
		who := holder.FindAllStringSubmatch(line, -1)
		if len(who) != 1 {
			return nil, fmt.Errorf("%d processes hold the connection %s", len(who), line)
		}
		pid, err := strconv.Atoi(who[0][1])
		if err != nil {
			s.t.Fatal(err)
		}
		held[pid]++
	}
	return held, nil
}

// waitApart waits until the server holds nothing but the control connections of two portals and, of its own, the relay;
// and the relay both legs at least.
func (s *shared) waitApart() {
	s.t.Helper()
	await.Until(s.t, "each connection to be with its daemon", func() error {
		held, err := s.held()
		if err != nil {
			return err
		}
		server, relay := s.Server.Process().PID(), s.relay.Process().PID()
		if held[server] != 3 || held[relay] < 2 || len(held) != 2 {
			return fmt.Errorf("processes hold connections: %v, server is %d, relay %d", held, server, relay)
		}
		return nil
	})
}

// wantPath fails the test unless the tunnel goes by one of these paths.
func (s *shared) wantPath(paths ...string) {
	s.t.Helper()
	text := s.laptop.Run("status")
	for _, path := range paths {
		if strings.Contains(text, " "+path+" ") {
			return
		}
	}
	s.t.Errorf("status does not say that the tunnel goes by %q:\n%s", paths, text)
}

// TestServerAndRelayShareOnePort: portals from whose networks nothing but one port can be reached forward over the relay at
// it, bare or inside TLS. The server holds none of that: either of the two is restarted, and what is forwarded goes on.
func TestServerAndRelayShareOnePort(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []topo.Rule
		paths []string
	}{
		{"TCP to port 443", nil, []string{"relay-shared", "relay-tls"}},
		{"TLS to port 443", []topo.Rule{topo.DropPayload("NPLG")}, []string{"relay-tls"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShared(t, c.rules)
			client, service := s.stream()
			s.wantPath(c.paths...)
			s.waitApart()

			s.relay.Restart()
			await.RoundTrip(t, client, service)
			another, itsService := s.stream()
			s.wantPath(c.paths...)
			s.waitApart()

			s.Server.Stop()
			await.RoundTrip(t, client, service)
			await.RoundTrip(t, another, itsService)
			s.Server.Start()
			for _, p := range []*daemon.Portal{s.laptop, s.factory} {
				p.WaitConnected()
			}
			s.relay.WaitReady()
			await.RoundTrip(t, client, service)
			s.waitApart()
			s.measure(client, service)
			s.wantPath(c.paths...)
		})
	}
}

// TestRelayThatTakesNothing: a relay that does not name the server's user takes nothing from it, and says so, as a portal's
// doctor does. When it is put right, it gets what comes.
func TestRelayThatTakesNothing(t *testing.T) {
	s := newShared(t, nil, daemon.Set("take_over_from", "2"))
	client := s.laptop.Host().Dial("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	if line := s.relay.WaitLog("connections not taken over: take_over_from names another user"); !strings.Contains(line, "it is user 65534") {
		t.Errorf("the relay says %q", line)
	}
	out, _ := s.laptop.Command("doctor", "--wide").CombinedOutput() // it fails where no relay is reached
	if !strings.Contains(string(out), "takes connections there, and closes those for the relay") {
		t.Errorf("doctor says\n%s", out)
	}
	s.relay.Stop()
	s.relay.Configure("take_over_from", daemon.User)
	s.relay.Start()
	await.Limit(t, client)
	await.RoundTrip(t, client, await.Accept(t, s.service))
}
