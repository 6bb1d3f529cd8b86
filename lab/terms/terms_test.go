package terms

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

const (
	gatewayPort = 8080 // where gateway listens
	servicePort = 7007 // of the services
)

// world is the network of the package's picture.
type world struct {
	*daemon.Network
	client, stranger      *topo.Host
	gateway, north, south *daemon.Portal
}

// newWorld makes it, with a service at north and one at south that say their names and then send back what they get.
func newWorld(t *testing.T) *world {
	t.Helper()
	l := topo.New(t)
	home := l.Router("home", topo.Symmetric, topo.IPv4Only())
	w := &world{client: home.Host("client"), stranger: home.Host("stranger")}
	w.Network = daemon.New(t, l.Public("server"))
	w.Relay(l.Public("relay"))
	w.gateway, w.north, w.south = w.Portal(home.Host("gateway")), w.Portal(l.Public("north")), w.Portal(l.Public("south"))
	for _, p := range []*daemon.Portal{w.north, w.south} {
		serve(p.Host().Listen(servicePort), p.Name())
	}
	return w
}

// serve serves a listener until that is closed.
func serve(l net.Listener, name string) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, name)
				io.Copy(struct{ io.Writer }{conn}, conn)
			}()
		}
	}()
}

func (w *world) at() netip.AddrPort { return netip.AddrPortFrom(w.gateway.Host().Addr4(), gatewayPort) }

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// name dials from a host and returns which service answers.
func name(t *testing.T, from *topo.Host, to netip.AddrPort) (string, net.Conn, error) {
	t.Helper()
	conn, err := from.DialContext(t.Context(), "tcp", to)
	if err != nil {
		return "", nil, err
	}
	t.Cleanup(func() { conn.Close() })
	await.Limit(t, conn)
	b := make([]byte, len("north"))
	_, err = io.ReadFull(conn, b)
	return string(b), conn, err
}

// wantName waits until a service answers.
func wantName(t *testing.T, from *topo.Host, to netip.AddrPort, want string, limit time.Duration) net.Conn {
	t.Helper()
	var conn net.Conn
	await.Within(t, want+" answers", limit, func() error {
		got, c, err := name(t, from, to)
		if conn = c; err == nil && got != want {
			err = fmt.Errorf("%q answers", got)
		}
		return err
	})
	return conn
}

// wantExplained wants words in what a portal says about a forward.
func wantExplained(t *testing.T, p *daemon.Portal, forward string, words ...string) {
	t.Helper()
	text := p.Explain(forward)
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s: explain %s lacks %q:\n%s", p.Name(), forward, word, text)
		}
	}
}

// TestGatewayServesItsClientsByTheTargetThatIsThere: a client reaches the first target, the next while that one's portal
// is killed, and the first again; a machine beside it that is not granted gets a reset.
func TestGatewayServesItsClientsByTheTargetThatIsThere(t *testing.T) {
	w := newWorld(t)
	w.Apply(fmt.Sprintf(`
		[[forward]]
		name    = "web"
		from    = "gateway tcp://0.0.0.0:%d"
		to      = ["north tcp://127.0.0.1:%d", "south tcp://127.0.0.1:%d"]
		clients = ["%s/32"]
	`, gatewayPort, servicePort, servicePort, w.client.Addr4()))
	w.gateway.WaitUp("web")
	wantName(t, w.client, w.at(), "north", await.Patience)
	for range 3 {
		if got, _, err := name(t, w.stranger, w.at()); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the stranger: %q, %v; want a reset", got, err)
		}
	}
	w.north.Kill()
	wantName(t, w.client, w.at(), "south", 20*time.Second)
	began := time.Now()
	stays := wantName(t, w.client, w.at(), "south", 5*time.Second)
	t.Logf("the next connection has taken %v", time.Since(began))
	wantExplained(t, w.gateway, "web", "new connections go to this one", "It works")
	w.north.Start()
	wantName(t, w.client, w.at(), "north", 20*time.Second)
	if _, err := io.WriteString(stays, "still"); err != nil {
		t.Error(err)
	}
	b := make([]byte, len("still"))
	if _, err := io.ReadFull(stays, b); err != nil || string(b) != "still" {
		t.Errorf("what runs at south: %q, %v", b, err)
	}
	wantExplained(t, w.gateway, "web", "3 connections or datagrams came from addresses that are not granted")
}

// TestLimitsOutliveAPortalThatIsKilled: a rate, streams at once, and the bytes of the month, which the exit remembers.
func TestLimitsOutliveAPortalThatIsKilled(t *testing.T) {
	w := newWorld(t)
	w.Apply(fmt.Sprintf(`
		[[forward]]
		name    = "slow"
		from    = "gateway tcp://127.0.0.1:%[1]d"
		to      = "north tcp://127.0.0.1:%[3]d"
		rate    = "2MB/s"
		streams = 2

		[[forward]]
		name  = "monthly"
		from  = "gateway tcp://127.0.0.1:%[2]d"
		to    = "north tcp://127.0.0.1:%[3]d"
		month = "3MB"
	`, gatewayPort, gatewayPort+1, servicePort))
	w.gateway.WaitUp("slow")
	w.gateway.WaitUp("monthly")
	host := w.gateway.Host()
	one := wantName(t, host, local(gatewayPort), "north", await.Patience)
	wantName(t, host, local(gatewayPort), "north", await.Patience)
	if got, _, err := name(t, host, local(gatewayPort)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a third at once: %q, %v; want a reset", got, err)
	}
	wantExplained(t, w.gateway, "slow", "2 at once are allowed", "a limit of the grant is reached")
	const size = 6_000_000
	began := time.Now()
	go one.Write(bytes.Repeat([]byte("x"), size))
	if _, err := io.CopyN(io.Discard, one, size); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()
	t.Logf("%d bytes at 2 MB/s took %.2f s", size, took)
	if took < 2.8 || took > 4.5 {
		t.Errorf("%d bytes at 2 MB/s took %.2f s", size, took)
	}
	month := wantName(t, host, local(gatewayPort+1), "north", await.Patience)
	wrote := make(chan error, 1)
	go func() {
		_, err := month.Write(make([]byte, 10_000_000))
		wrote <- err
	}()
	n, err := io.Copy(io.Discard, month)
	if err == nil { // the system tells of a reset once: it was the writer who heard
		err = <-wrote
	}
	if !errors.Is(err, syscall.ECONNRESET) || n > 3_000_000 {
		t.Errorf("%d bytes came back, %v; want a reset within the month's 3 MB", n, err)
	}
	w.north.Kill()
	w.north.Start()
	await.Until(t, "refused for the month again", func() error {
		if text := w.gateway.Explain("monthly"); !strings.Contains(text, "bytes of the month are used up") {
			return errors.New(text)
		}
		return nil
	})
	if got, _, err := name(t, host, local(gatewayPort+1)); err == nil {
		t.Errorf("%q answers after a restart", got)
	}
	wantExplained(t, w.north, "monthly", "limit")
}

// TestHoursEndWithoutTheServer: at the minute, the listener closes and what runs is cut, though no server says so.
func TestHoursEndWithoutTheServer(t *testing.T) {
	stage.EnterIdle(t)
	w := newWorld(t)
	now := time.Now().UTC()
	end := now.Truncate(time.Minute).Add(time.Minute)
	if end.Sub(now) < 25*time.Second {
		end = end.Add(time.Minute)
	}
	clock := func(at time.Time) string { return at.Format("15:04") }
	w.Apply(fmt.Sprintf(`
		[[forward]]
		name  = "web"
		from  = "gateway tcp://127.0.0.1:%d"
		to    = "north tcp://127.0.0.1:%d"
		hours = ["mon-sun %s-%s"]
	`, gatewayPort, servicePort, clock(end.Add(-time.Hour)), clock(end)))
	w.gateway.WaitUp("web")
	conn := wantName(t, w.gateway.Host(), local(gatewayPort), "north", await.Patience)
	w.Server.Stop()
	conn.SetDeadline(end.Add(20 * time.Second))
	await.Reset(t, "the client", conn)
	late := time.Since(end)
	t.Logf("cut %v after the minute", late)
	if late < 0 || late > 2*time.Second {
		t.Errorf("cut %v after the end of the hours", late)
	}
	await.Within(t, "nobody to listen at the gateway", 2*time.Second, func() error { // the exit may be the quicker
		if got, _, err := name(t, w.gateway.Host(), local(gatewayPort)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("got %q, %v", got, err)
		}
		return nil
	})
	for _, p := range []*daemon.Portal{w.gateway, w.north} {
		wantExplained(t, p, "web", "outside the policy's hours")
	}
}
