package doctor

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/proxy"
)

// line returns what a report says about something.
func line(t *testing.T, r Report, what string) Line {
	t.Helper()
	for _, l := range r.Lines {
		if l.What == what {
			return l
		}
	}
	t.Fatalf("nothing about %q in %+v", what, r.Lines)
	return Line{}
}

func TestMappingOfTheNATIsNamed(t *testing.T) {
	seen := func(name, relay string, port uint16, mapped string) Relay {
		return Relay{Name: name, Addr: netip.MustParseAddr(relay), UDPPort: port, Mapped: netip.MustParseAddrPort(mapped)}
	}
	one := seen("relay-1", "192.0.2.1", 3478, "198.51.100.1:4000")
	for _, c := range []struct {
		name   string
		relays []Relay
		want   string
	}{
		{"no relay answers", []Relay{{Name: "relay-1", UDPPort: 3478, UDP: Try{Fault: Silent}}}, "unknown: "},
		{"no NAT", []Relay{seen("relay-1", "192.0.2.1", 3478, "203.0.113.7:4000")}, "no NAT: relays see this machine at its own address 203.0.113.7"},
		{"one relay", []Relay{one}, "a NAT, its mapping unknown, for that takes two relays: its address is 198.51.100.1"},
		{"the same", []Relay{one, seen("relay-2", "192.0.2.2", 3478, "198.51.100.1:4000")}, "endpoint-independent mapping: 198.51.100.1:4000"},
		{"another port for another relay", []Relay{one, seen("relay-2", "192.0.2.2", 3478, "198.51.100.1:4001")}, "address-dependent mapping, or address and port-dependent: 198.51.100.1:4000 at relay relay-1, 198.51.100.1:4001 at relay relay-2; its filtering is unknown"},
		{"another port for another port", []Relay{one, seen("relay-2", "192.0.2.1", 443, "198.51.100.1:4001")}, "address and port-dependent mapping: "},
	} {
		r := Judge(Facts{Relays: c.relays, Local: map[netip.Addr]bool{netip.MustParseAddr("203.0.113.7"): true}})
		if l := line(t, r, "NAT"); l.State != OK || !strings.HasPrefix(l.Text, c.want) {
			t.Errorf("%s: %+v, want %q", c.name, l, c.want)
		}
	}
}

func TestWhatTheRouterMapsIsSaid(t *testing.T) {
	maps := &daemon.Known{Status: daemon.Status{Router: &daemon.Router{
		Gateway: "192.168.0.1", Protocol: "PCP", Mappings: []daemon.Mapping{{Transport: "udp", Port: 4000, External: "198.51.100.1:4000"}},
	}}}
	for _, c := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"it is not to be asked", Facts{}, "not wanted by the configuration (direct, port_mapping)"},
		{"no daemon runs", Facts{Maps: true, Protocol: "NAT-PMP"}, "the router maps ports by NAT-PMP, while a tunnel looks for direct paths"},
		{"a daemon has some", Facts{Maps: true, Protocol: "PCP", Daemon: maps}, "192.168.0.1 maps 198.51.100.1:4000 udp (PCP)"},
		{"it speaks nothing", Facts{Maps: true, Unmapped: errors.New("PCP: no answer"), Daemon: maps}, "none: PCP: no answer; direct paths are looked for without it"},
	} {
		if l := line(t, Judge(c.facts), "port mapping"); l.State != OK || l.Text != c.want {
			t.Errorf("%s: %+v, want %q", c.name, l, c.want)
		}
	}
}

func TestClockAndCertificateAreJudgedByTheServersTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name         string
		left         time.Duration // of the certificate, by the clock of the machine
		told         bool
		ahead        time.Duration
		clock, paper State
		does         string // what to do about the certificate
	}{
		{"all well", 20 * 24 * time.Hour, true, 2 * time.Second, OK, OK, ""},
		{"nobody told the time", 20 * 24 * time.Hour, false, 0, Warning, OK, ""},
		{"ends soon", 48 * time.Hour, true, 0, OK, Warning, "status says why"},
		{"ended", -time.Hour, true, 0, OK, Failed, "join anew"},
		{"ended by a clock that is not known", -time.Hour, false, 0, Warning, Warning, "look at that clock"},
		{"looks ended, for the clock is ahead", -5 * time.Hour, true, 20 * 24 * time.Hour, Failed, OK, ""},
		{"an hour ahead", 20 * 24 * time.Hour, true, time.Hour, Warning, OK, ""},
		{"stamps look ended", 20 * 24 * time.Hour, true, 24 * time.Hour, Failed, OK, ""},
		{"an hour behind", 20 * 24 * time.Hour, true, -time.Hour, Warning, OK, ""},
	} {
		r := Judge(Facts{Now: now, Begins: now.Add(c.left - 30*24*time.Hour), Ends: now.Add(c.left), Told: c.told, Ahead: c.ahead})
		clock, paper := line(t, r, "clock"), line(t, r, "certificate")
		if clock.State != c.clock || paper.State != c.paper || !strings.Contains(paper.Do, c.does) {
			t.Errorf("%s: %+v, %+v", c.name, clock, paper)
		}
	}
}

// TestWhatIsNeededAndWhatIsFaster: a port is needed where nothing else works, and else it is faster or in reserve.
func TestWhatIsNeededAndWhatIsFaster(t *testing.T) {
	server := Server{Host: "192.0.2.1", Port: 443, Named: true, Addr: netip.MustParseAddrPort("192.0.2.1:443"), Try: Try{Fault: Silent}}
	relay := Relay{Name: "relay-1", Addr: netip.MustParseAddr("192.0.2.2"), TCPPort: 3478, TCP: Try{Fault: Silent}, UDPPort: 3478, UDP: Try{Fault: Silent}}
	good := relay
	good.Name, good.Addr, good.TCP = "relay-2", netip.MustParseAddr("192.0.2.3"), Try{Took: time.Millisecond}
	byUDP := server
	byUDP.Proven, byUDP.UDP = "server", true
	if lines := Judge(Facts{Servers: []Server{byUDP}}).Lines; !slices.ContainsFunc(lines, func(l Line) bool {
		return l.What == "server 192.0.2.1:443" && l.State == Warning && strings.HasSuffix(l.Text, "no answer within 5s; over UDP it is reached")
	}) {
		t.Errorf("the server is reached over UDP alone: %+v", lines)
	}
	connected := &daemon.Known{}
	connected.Status.Server.Connected = true
	needs := func(f Facts) string {
		var words []string
		for _, o := range Judge(f).Open {
			words = append(words, o.Protocol+" "+o.Host+" "+o.Ports+" "+string(o.Need))
		}
		return strings.Join(words, "; ")
	}
	for _, c := range []struct {
		name string
		f    Facts
		want string
	}{
		{"nothing works", Facts{Servers: []Server{server}, Relays: []Relay{relay}},
			"TCP 192.0.2.1 443 needed; TCP 192.0.2.2 (relay-1) 3478 needed; UDP 192.0.2.2 (relay-1) 3478 needed"},
		{"the server is reached over UDP", Facts{Servers: []Server{byUDP}, Relays: []Relay{good}},
			"TCP 192.0.2.1 443 reserve; UDP 192.0.2.3 (relay-2) 3478 faster"},
		{"another server and another relay work", Facts{Daemon: connected, Servers: []Server{server}, Relays: []Relay{relay, good}},
			"TCP 192.0.2.1 443 reserve; TCP 192.0.2.2 (relay-1) 3478 reserve; UDP 192.0.2.2 (relay-1) 3478 reserve; UDP 192.0.2.3 (relay-2) 3478 faster"},
	} {
		if got := needs(c.f); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestWhatAProxyDoesIsSaid: whether it is reached, wants other proof, or connects to some places or none; and nobody is
// asked to open a port of a firewall that only the proxy passes.
func TestWhatAProxyDoesIsSaid(t *testing.T) {
	const url = "http://p:3128"
	fails := func(f proxy.Fault) Try {
		return Try{Fault: AtProxy, Err: &proxy.Error{Proxy: url, Fault: f, Err: errors.New("as it says")}}
	}
	works := Try{Took: time.Millisecond}
	for _, c := range []struct {
		name          string
		server, relay Try
		state         State
		says, does    string
	}{
		{"works", works, works, OK, "2 of the 2", ""},
		{"declines the relay", works, fails(proxy.Declined), OK, "1 of the 2", ""},
		{"declines all", fails(proxy.Declined), fails(proxy.Declined), Failed, "connects to no server", "CONNECT"},
		{"wants proof", fails(proxy.Unauthorized), fails(proxy.Unauthorized), Failed, "as it says", "proxy_password_file"},
		{"is away", fails(proxy.Unreached), fails(proxy.Unreached), Failed, "as it says", "host and port"},
	} {
		s := Server{Host: "server.example", Port: 443, Named: true, Proxy: url, Try: c.server}
		if c.server.Fault == None {
			s.Proven = "server"
		}
		relay := Relay{Name: "relay-1", Addr: netip.MustParseAddr("192.0.2.2"), Proxy: url, TCPPort: 443, TCP: c.relay}
		r := Judge(Facts{Servers: []Server{s}, Relays: []Relay{relay}})
		l := line(t, r, "proxy "+url)
		if l.State != c.state || !strings.Contains(l.Text, c.says) || !strings.Contains(l.Do, c.does) {
			t.Errorf("%s: %+v", c.name, l)
		}
		if l := line(t, r, "server server.example:443"); (l.State == OK) != (s.Proven != "") {
			t.Errorf("%s: %+v", c.name, l)
		}
		if len(r.Open) > 0 {
			t.Errorf("%s: asks for %+v", c.name, r.Open)
		}
	}
}
