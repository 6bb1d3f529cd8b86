package daemon_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// wantEcho sends a line over a connection and wants it back.
func wantEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	const line = "out and back\n"
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != line {
		t.Fatalf("got %q, %v; want %q", got, err, line)
	}
}

// laptop --- home (NAT) ---+-- inet --+--- office (NAT) --- factory
//
//	server -+          +- relay
func TestNetworkForwardsWhatThePolicySaysThroughRestarts(t *testing.T) {
	l := topo.New(t)
	home, office := l.Router("home", topo.PortRestricted), l.Router("office", topo.Symmetric)
	n := daemon.New(t, l.Public("server"))
	relay := n.Relay(l.Public("relay"))
	laptop := n.Portal(home.Host("laptop"))
	factory := n.Portal(office.Host("factory"), daemon.Set("log_level", "debug"))
	factory.Host().EchoTCP(7)

	n.Apply(`
		[[forward]]
		name = "echo"
		from = "laptop tcp://127.0.0.1:7007"
		to   = "factory tcp://127.0.0.1:7"

		[[forward]]
		name = "by-hand"
		from = "laptop stdio:"
		to   = "factory tcp://127.0.0.1:7"
	`)
	laptop.WaitUp("echo")
	from := netip.MustParseAddrPort("127.0.0.1:7007")
	wantEcho(t, laptop.Host().Dial("tcp", from))

	if got := laptop.Explain("echo"); !strings.Contains(got, "factory") {
		t.Errorf("explain says nothing of factory:\n%s", got)
	}
	if got := laptop.Ping("factory"); !strings.Contains(got, "factory") {
		t.Errorf("ping says nothing of factory:\n%s", got)
	}
	connect := laptop.Connect("factory", "tcp://127.0.0.1:7")
	connect.Stdin = strings.NewReader("by hand\n")
	if got, err := connect.Output(); err != nil || string(got) != "by hand\n" {
		t.Errorf("connect: got %q, %v", got, err)
	}
	if len(n.Server.Audit()) == 0 {
		t.Error("the server has decided and has nothing in its audit log")
	}

	n.Server.Kill()
	n.Server.Start()
	relay.Restart()
	factory.Restart()
	laptop.Configure("log_level", "debug")
	laptop.Restart()
	laptop.WaitUp("echo")
	wantEcho(t, laptop.Host().Dial("tcp", from))

	if out, err := n.TryApply("[[forward]]\nname = 7\n"); err == nil || !strings.Contains(out, "policy.toml:3:8") {
		t.Errorf("a broken policy: %v, with %q", err, out)
	}
	n.Apply("")
	laptop.WaitGone("echo")
}
