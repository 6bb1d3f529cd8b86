package cli

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/doctor"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/command"
)

// TestDoctorsWords has most of what doctor can say: a laptop in an hotel, whose clock is ahead.
func TestDoctorsWords(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := netip.MustParseAddrPort
	addr := netip.MustParseAddr
	silent := doctor.Try{Fault: doctor.Silent}
	known := daemon.Known{}
	known.Status.Server.Since = now.Add(-time.Hour)
	known.Status.Tunnels = []peers.Status{{Peer: "factory", Relay: "relay-1", Address: "192.0.2.7:443", Path: "relay-tls", Ways: []peers.Way{{Path: "relay-tls"}}}}
	f := doctor.Facts{
		Config: "/etc/netport/portal/config.toml", Now: now, Begins: now.AddDate(0, 0, -20), Ends: now.AddDate(0, 0, 10),
		Files:  []doctor.File{{What: "key"}, {What: "state", Path: "/var/lib/netport", Err: errors.New("its mode 0777 lets others use it; run: chmod 700 /var/lib/netport")}},
		Daemon: &known, Told: true, Ahead: 30 * time.Hour, Maps: true, Protocol: "PCP",
		Names: []doctor.Name{
			{Host: "a.example.org", Addrs: []netip.Addr{addr("192.0.2.1")}, Took: 12 * time.Millisecond},
			{Host: "b.example.org", Addrs: []netip.Addr{addr("10.0.0.1")}, Earlier: []netip.Addr{addr("192.0.2.2")}},
			{Host: "c.example.org", Err: errors.New("no such host\x1b[2J")},
		},
		Servers: []doctor.Server{
			{Host: "a.example.org", Port: 443, Addr: at("192.0.2.1:443"), Try: doctor.Try{Took: 20 * time.Millisecond}, Proven: "server"},
			{Host: "a.example.org", Port: 80, Addr: at("192.0.2.1:80"), Try: silent},
			{Host: "b.example.org", Port: 443, Named: true, Addr: at("10.0.0.1:443"), Try: doctor.Try{Fault: doctor.NoTLS}, Said: "HTTP/1.1 302 Found, to http://log.in/"},
			{Host: "b.example.org", Port: 443, Named: true, Addr: at("192.0.2.2:443"), Try: doctor.Try{Fault: doctor.Foreign}, Earlier: true, Shown: "*.example.org", Issuer: "CN=Filter"},
			{Host: "192.0.2.3", Port: 443, Named: true, Addr: at("192.0.2.3:443"), Try: doctor.Try{Fault: doctor.Swallowed}},
			{Host: "192.0.2.4", Port: 443, Named: true, Addr: at("192.0.2.4:443"), Try: doctor.Try{Fault: doctor.Cut}},
			{Host: "2001:db8::5", Port: 443, Named: true, Addr: at("[2001:db8::5]:443"), Try: doctor.Try{Fault: doctor.Unreachable, Err: syscall.ENETUNREACH}},
		},
		Relays: []doctor.Relay{
			{Name: "relay-1", Addr: addr("192.0.2.7"), TCPPort: 443, TCP: doctor.Try{Took: 15 * time.Millisecond}, UDPPort: 443, UDP: silent, MTU: 1200},
			{Name: "relay-2", Addr: addr("192.0.2.8"), TCPPort: 3478, TCP: doctor.Try{Fault: doctor.Refused}, UDPPort: 3478, UDP: doctor.Try{Took: 8 * time.Millisecond}, MTU: 1500, Mapped: at("198.51.100.1:4000")},
			{Name: "relay-2", Addr: addr("2001:db8::8"), TCPPort: 3478, TCP: doctor.Try{Fault: doctor.Unreachable, Err: syscall.ENETUNREACH}, UDPPort: 3478, UDP: doctor.Try{Fault: doctor.Unreachable, Err: syscall.ENETUNREACH}},
			{Name: "relay-3", Addr: addr("192.0.2.9"), TCPPort: 3478, TCP: silent, UDPPort: 3478, UDP: doctor.Try{Took: 8 * time.Millisecond}, Mapped: at("198.51.100.1:4001")},
		},
	}
	var b bytes.Buffer
	r := doctor.Judge(f)
	if err := printReport(&command.Page{Writer: &b}, r); err != nil {
		t.Fatal(err)
	}
	const want = `ok       configuration: /etc/netport/portal/config.toml
failed   state: its mode 0777 lets others use it; run: chmod 700
         /var/lib/netport
         -> see to /var/lib/netport: the portal does not start with it, or keeps
            nothing
ok       files: key: there, and nobody else's
ok       certificate: until 2026-12-03T12:00:00Z
failed   clock: 30h0m0s ahead of the server's
         -> set it right (NTP): grants and certificates look as if they had
            ended
warning  daemon: it runs, and has no connection to a server since
         2026-11-23T11:00:00Z
         -> what is wrong below is why, else its log says it
ok       name a.example.org: is 192.0.2.1 (12 ms)
warning  name b.example.org: is 10.0.0.1, where no server of this domain is; it
         was 192.0.2.2 before
         -> the name server lies, or the server has moved: ask its operator for
            the address
warning  name c.example.org: not found: no such host?[2J
         -> see to this machine's name servers (/etc/resolv.conf), or name the
            server by its address
ok       server 192.0.2.1:443 (a.example.org): server, proven by its certificate
         (20 ms)
ok       server 192.0.2.1:80 (a.example.org): no answer within 5s; not needed,
         for another of its ports or addresses works
warning  server 10.0.0.1:443 (b.example.org): a captive portal or proxy answers
         in the server's place: "HTTP/1.1 302 Found, to http://log.in/"
         -> log in there with a browser, or have this machine excepted from it
warning  server 192.0.2.2:443 (b.example.org): somebody else answers there: a
         certificate of "*.example.org", issued by "CN=Filter", was shown
         -> if that is your network's firewall, have it not look into TLS to
            this address; else the name or address leads to another machine
warning  server 192.0.2.3:443: the connection opens, and TLS is not answered
         within 5s
         -> a firewall or proxy on the way takes the connection and lets nothing
            through; have it let TLS through
warning  server 192.0.2.4:443: the connection opens, and is cut when TLS begins
         -> a firewall looks into TLS, or another service listens there; have it
            let TLS through, or correct the port in servers
warning  server [2001:db8::5]:443: there is no way there: network is unreachable
         -> see to this machine's network: its address, its default route, its
            own firewall
ok       relay relay-1 TCP: 192.0.2.7 port 443, round trip 15 ms
warning  relay relay-1 UDP: 192.0.2.7 port 443: no answer within 5s; the relay
         is reached the other way
         -> a firewall drops it, or the machine is away: see what to open below
warning  relay relay-2 TCP: 192.0.2.8 port 3478: refused; the relay is reached
         the other way
         -> nothing listens there, or a firewall rejects it: see what to open
            below
ok       relay relay-2 UDP: 192.0.2.8 port 3478, round trip 8.0 ms
warning  relay relay-3 TCP: 192.0.2.9 port 3478: no answer within 5s; the relay
         is reached the other way
         -> a firewall drops it, or the machine is away: see what to open below
ok       relay relay-3 UDP: 192.0.2.9 port 3478, round trip 8.0 ms
warning  session ports: the tunnel to factory goes by the port that all sessions
         of relay relay-1 share (relay-tls)
         -> they are shut here or at factory: see what to open below
warning  MTU: packets of up to 1200 bytes to relay relay-1, as far as the
         routers on the way tell
         -> QUIC needs 1280 bytes: raise the MTU of the link, or go without
            (tunnels then go over TCP)
ok       MTU: packets of up to 1500 bytes to relay relay-2, as far as the
         routers on the way tell
ok       NAT: address-dependent mapping, or address and port-dependent:
         198.51.100.1:4000 at relay relay-2, 198.51.100.1:4001 at relay relay-3;
         its filtering is unknown, for relays answer from no second address
ok       port mapping: the router maps ports by PCP, while a tunnel looks for
         direct paths

For the firewall's owner: nothing has to be let in. Please let out
PROTOCOL  HOST                 PORT         NEED     WHY
TCP       192.0.2.3            443          reserve  the server, with nobody
                                                     looking into TLS and no
                                                     log-in page
TCP       192.0.2.4            443          reserve  the server, with nobody
                                                     looking into TLS and no
                                                     log-in page
UDP       192.0.2.7 (relay-1)  443          faster   datagrams go faster over
                                                     UDP, and what is lost holds
                                                     nothing else up
TCP       192.0.2.8 (relay-2)  3478         faster   bulk goes faster over TCP
TCP       192.0.2.9 (relay-3)  3478         faster   bulk goes faster over TCP
TCP       192.0.2.7 (relay-1)  20000-32767  faster   ports of single sessions,
                                                     if the relay's operator has
                                                     not chosen others
UDP       192.0.2.7 (relay-1)  20000-32767  faster   ports of single sessions,
                                                     if the relay's operator has
                                                     not chosen others
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !r.Failed() {
		t.Error("it has not failed")
	}
}
