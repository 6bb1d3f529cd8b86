// Package doctor has the stories of "netport-portal doctor" with the real programs: in a network where all is well, behind a
// firewall that drops UDP, with a server that is shut, with names that lie and with a proxy in the server's place.
//
//	laptop --- home (NAT) ---+--- server, relay-1, relay-2, stranger
//	                         +--- office (NAT) --- factory
package doctor

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// serverName is the name by which the portals know the server.
const serverName = "netport.example.org"

// world is the network of the package's picture.
type world struct {
	*daemon.Network
	t               *testing.T
	home            *topo.Router
	relays          [2]*daemon.Relay
	laptop, factory *daemon.Portal
	stranger        *topo.Host
}

func newWorld(t *testing.T, nat topo.NAT) *world {
	t.Helper()
	l := topo.New(t)
	w := &world{t: t, home: l.Router("home", nat, topo.IPv4Only()), stranger: l.Public("stranger", topo.IPv4Only())}
	office := l.Router("office", topo.PortRestricted, topo.IPv4Only())
	w.Network = daemon.New(t, l.Public("server", topo.IPv4Only()))
	for i := range w.relays {
		w.relays[i] = w.Relay(l.Public(fmt.Sprint("relay-", i+1), topo.IPv4Only()))
	}
	laptop := w.home.Host("laptop")
	w.name(laptop, w.Server.Host().Addr())
	w.laptop = w.Portal(laptop, daemon.Set("servers", []string{serverName + ":443"}))
	w.factory = w.Portal(office.Host("factory"))
	w.Apply("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:8080\"\nto = \"factory tcp://127.0.0.1:80\"\n")
	w.laptop.WaitUp("web")
	return w
}

// name lets a host know the server's name as this address.
func (w *world) name(host *topo.Host, addr netip.Addr) {
	w.t.Helper()
	host.ShowFile("/etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%v %s\n", addr, serverName))
}

// doctor runs it at the laptop and returns what it says and its exit status.
func (w *world) doctor() (text string, status int) {
	w.t.Helper()
	cmd := w.laptop.Command("doctor", "--wide")
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		w.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// wants fails the test for what is not in the text, however wide its columns are.
func wants(t *testing.T, text string, want ...string) {
	t.Helper()
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, line := range want {
		if !strings.Contains(squeezed, strings.Join(strings.Fields(line), " ")) {
			t.Errorf("it does not say %q:\n%s", line, text)
			return
		}
	}
}

// tickets waits until the laptop has kept tickets of both relays.
func (w *world) tickets() {
	w.t.Helper()
	await.Until(w.t, "tickets of both relays are kept", func() error {
		out, err := w.laptop.Command("doctor", "--json").Output()
		var r struct{ Lines []struct{ What string } }
		if json.Unmarshal(out, &r) != nil {
			return fmt.Errorf("doctor: %w: %s", err, out)
		}
		for _, relay := range w.relays {
			want := "relay " + relay.Name() + " UDP"
			found := false
			for _, l := range r.Lines {
				found = found || l.What == want
			}
			if !found {
				return fmt.Errorf("no line %q in %s", want, out)
			}
		}
		return nil
	})
}

// TestDoctorFindsNothingWrong: with the daemon and without it, in a network where all is well.
func TestDoctorFindsNothingWrong(t *testing.T) {
	w := newWorld(t, topo.PortRestricted)
	w.tickets()
	server := w.Server.Host().Addr()
	well := []string{
		"ok       name " + serverName + ": is " + server.String(),
		fmt.Sprintf("ok       server %v:443 (%s): server, proven by its certificate", server, serverName),
		"ok       clock: within ",
		fmt.Sprintf("ok       relay relay-1 TCP: %v port 3478, round trip ", w.relays[0].Host().Addr()),
		fmt.Sprintf("ok       relay relay-2 UDP: %v port 3478, round trip ", w.relays[1].Host().Addr()),
		"ok       MTU: packets of up to 1500 bytes to relay relay-1",
		fmt.Sprintf("ok       NAT: endpoint-independent mapping: %v:", w.home.Addr()),
		"Nothing was found that a firewall would have to let out.",
	}
	text, status := w.doctor()
	wants(t, text, append(well, "ok       daemon: it runs, connected to server at ", "ok       session ports: the tunnel to factory goes by them at relay ")...)
	if status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if l := w.Server.Log(); strings.Contains(l, "two machines use one identity") {
		t.Error("the server took doctor for another machine with the portal's identity")
	}
	w.laptop.Stop()
	text, status = w.doctor()
	wants(t, text, append(well, "warning  daemon: it is not running", "ok       session ports: not known: only a tunnel shows them")...)
	if status != 0 {
		t.Errorf("exit status %d without the daemon, want 0: these are warnings", status)
	}
}

// TestDoctorNamesUDPThatIsDropped: and the ports that its owner would have to let out, which is no failure.
func TestDoctorNamesUDPThatIsDropped(t *testing.T) {
	w := newWorld(t, topo.Symmetric)
	w.tickets()
	text, _ := w.doctor()
	wants(t, text, "ok       NAT: address-dependent mapping, or address and port-dependent: ")
	w.home.SetRules(topo.BlockUDP)
	text, status := w.doctor()
	one, two := w.relays[0].Host().Addr(), w.relays[1].Host().Addr()
	wants(t, text,
		fmt.Sprintf("ok       relay relay-1 TCP: %v port 3478", one),
		fmt.Sprintf("warning  relay relay-1 UDP: %v port 3478: no answer within 5s; the relay is reached the other way", one),
		"ok       NAT: unknown",
		"For the firewall's owner: nothing has to be let in. Please let out",
		fmt.Sprintf("UDP       %v (relay-1)", one),
		fmt.Sprintf("UDP       %v (relay-2)", two),
	)
	if status != 0 {
		t.Errorf("exit status %d, want 0: it works over TCP", status)
	}
	w.home.SetRules(topo.BlockUDP, topo.BlockTCPTo(one, two))
	text, status = w.doctor()
	wants(t, text,
		fmt.Sprintf("failed   relay relay-1 TCP: %v port 3478: no answer within 5s", one),
		fmt.Sprintf("TCP       %v (relay-1)  3478   needed", one))
	if status != 1 {
		t.Errorf("exit status %d, want 1: no relay is reached", status)
	}
}

// TestDoctorNamesSessionPortsThatAreShut: with all that it tries itself open. That shows by a tunnel alone, which the
// daemon opens for it.
func TestDoctorNamesSessionPortsThatAreShut(t *testing.T) {
	w := newWorld(t, topo.PortRestricted)
	w.home.SetRules(topo.BlockPorts(20000, 32767))
	w.tickets()
	text, status := w.doctor()
	relay := w.relays[0]
	if !strings.Contains(text, "share (relay-tls)") && !strings.Contains(text, "share (relay-shared)") || status != 0 {
		t.Fatalf("exit status %d:\n%s", status, text)
	}
	for _, r := range w.relays {
		wants(t, text, fmt.Sprintf("ok       relay %s TCP: %v port 3478", r.Name(), r.Host().Addr()))
		if strings.Contains(text, "all sessions of relay "+r.Name()) {
			relay = r
		}
	}
	wants(t, text,
		fmt.Sprintf("warning  session ports: the tunnel to factory goes by the port that all sessions of relay %s share", relay.Name()),
		fmt.Sprintf("TCP       %v (%s)  20000-32767  faster", relay.Host().Addr(), relay.Name()),
		fmt.Sprintf("UDP       %v (%s)  20000-32767  faster", relay.Host().Addr(), relay.Name()))
}

// TestDoctorFindsTheSmallestPacket: a router with a smaller link tells.
func TestDoctorFindsTheSmallestPacket(t *testing.T) {
	l := topo.New(t)
	dsl := l.Router("dsl", topo.PortRestricted, topo.IPv4Only(), topo.MTU(1400))
	n := daemon.New(t, l.Public("server", topo.IPv4Only()))
	n.Relay(l.Public("relay", topo.IPv4Only()))
	w := &world{t: t, Network: n, laptop: n.Portal(dsl.Host("laptop")), factory: n.Portal(dsl.Host("factory"))}
	n.Apply("[[forward]]\nname = \"web\"\nfrom = \"laptop tcp://127.0.0.1:8080\"\nto = \"factory tcp://127.0.0.1:80\"\n")
	await.Until(t, "the MTU is found", func() error {
		if text, _ := w.doctor(); !strings.Contains(text, "ok       MTU: packets of up to 1400 bytes to relay relay") {
			return fmt.Errorf("it says %s", text)
		}
		return nil
	})
}

// TestDoctorFindsTheServerShut: a port where nothing listens, a firewall that drops, a captive portal, another machine.
func TestDoctorFindsTheServerShut(t *testing.T) {
	w := newWorld(t, topo.PortRestricted)
	w.tickets()
	server := w.Server.Host().Addr()
	w.laptop.Stop()
	w.home.SetRules(topo.BlockTCPTo(server))
	text, status := w.doctor()
	wants(t, text,
		fmt.Sprintf("warning  server %v:443 (%s): no answer within 5s; over UDP it is reached", server, serverName),
		fmt.Sprintf("TCP       %v (%s)  443    reserve  the server", server, serverName))
	if status != 0 {
		t.Errorf("exit status %d, want 0: the portal goes there over UDP", status)
	}
	w.home.SetRules(topo.BlockTCPTo(server), topo.BlockUDPTo(server))
	text, status = w.doctor()
	wants(t, text,
		fmt.Sprintf("failed   server %v:443 (%s): no answer within 5s", server, serverName),
		fmt.Sprintf("TCP       %v (%s)  443    needed  the server", server, serverName))
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	w.home.SetRules()

	// Names that lie: to where nobody listens, and the server is still where it was.
	w.name(w.laptop.Host(), w.stranger.Addr())
	text, status = w.doctor()
	wants(t, text,
		fmt.Sprintf("warning  name %s: is %v, where no server of this domain is; it still is at %v", serverName, w.stranger.Addr(), server),
		fmt.Sprintf("warning  server %v:443 (%s): refused", w.stranger.Addr(), serverName))
	if status != 0 {
		t.Errorf("exit status %d, want 0: the portal goes to where the server was", status)
	}

	// A captive portal where the name leads.
	w.stranger.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	captive := w.stranger.Listen(443)
	go func() {
		for {
			c, err := captive.Accept()
			if err != nil {
				return
			}
			go logIn(c)
		}
	}()
	text, _ = w.doctor()
	wants(t, text, `a captive portal or proxy answers in the server's place: "HTTP/1.1 302 Found, to http://login.hotel.example/"`)
	w.name(w.laptop.Host(), server)

	w.Server.Stop()
	text, status = w.doctor()
	wants(t, text,
		fmt.Sprintf("failed   server %v:443 (%s): refused", server, serverName),
		"warning  clock: not known: no server has told the time")
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
}

// logIn answers whatever comes with the way to a log-in page.
func logIn(c net.Conn) {
	defer c.Close()
	c.Read(make([]byte, 4096))
	fmt.Fprint(c, "HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\nContent-Length: 0\r\n\r\n")
}
