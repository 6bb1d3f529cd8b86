package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// wantExplained wants explain to say what is wrong, and where.
func wantExplained(t testing.TB, p *daemon.Portal, forward, want string) {
	t.Helper()
	if got := p.Explain(forward); !strings.Contains(got, want) {
		t.Errorf("%s: explain %s does not say %q:\n%s", p.Name(), forward, want, got)
	}
}

// wantLogged waits for a line of a daemon's log, written after the mark, that has all the texts.
func wantLogged(t testing.TB, d *daemon.Daemon, mark int, texts ...string) {
	t.Helper()
	await.Until(t, "logged", func() error { return logged(d, mark, texts...) })
}

// logged reports that there is no such line.
func logged(d *daemon.Daemon, mark int, texts ...string) error {
	log := d.Log()[mark:]
	for line := range strings.Lines(log) {
		lacks := func(text string) bool { return !strings.Contains(line, text) }
		if !slices.ContainsFunc(texts, lacks) {
			return nil
		}
	}
	return fmt.Errorf("%s has no line with %q in\n%s", d.Name(), texts, log)
}

// wantTurnedAway connects as a client and wants the connection to be closed, with nothing read, within the time.
func (w *world) wantTurnedAway(port uint16, within time.Duration) {
	w.t.Helper()
	start := time.Now()
	if err := turnedAway(w.t, w.laptop.Host(), port); err != nil {
		w.t.Error(err)
	}
	if took := time.Since(start); took > within {
		w.t.Errorf("the client was closed after %v, want %v at most", took, within)
	}
}

// turnedAway connects as a client on an entry portal's machine and reports if it is not turned away.
func turnedAway(t testing.TB, host *topo.Host, port uint16) error {
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", local(port))
	var n int
	if err == nil { // else it was closed even before the client had noticed that it was open
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(await.Patience)); err != nil {
			return err
		}
		n, err = conn.Read(make([]byte, 100))
	}
	if n > 0 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("the client read %d bytes, %v; want its connection closed", n, err)
	}
	return nil
}

// A client that cannot be served is closed at once, and explain and the logs say why, and on which machine.
func TestWhatDoesNotWorkIsSaidWithItsReasonAndPlace(t *testing.T) {
	w := newNetwork(t)
	// A name server that knows no name, for factory's machine.
	office := w.office.Host("factory")
	denyNames(w.plc.ListenUDP(53))
	office.ShowFile("/etc/resolv.conf", fmt.Sprintf("nameserver %s\noptions attempts:1\n", w.plc.Addr()))
	gone := w.office.Host("gone")
	gone.SetRules(topo.DropAll)
	w.laptop = w.Portal(w.home.Host("laptop"))
	allowed := append([]string{"tcp://nosuch.example:80", "tcp://" + gone.Addr().String() + ":80"}, w.service("tcp", echoPort))
	w.factory = w.Portal(office, daemon.Set("dial.allow", allowed))

	const at = 2 * time.Second // once, on a busy machine
	cases := []struct {
		name, target string
		within       time.Duration
		reason       string // in both logs
		explain      string
	}{
		{"refused", w.service("tcp", echoPort), at, "target refused", "It fails at factory: nothing listens at " + w.service("tcp", echoPort)},
		{"unknown", "tcp://nosuch.example:80", at, "target name unknown", "It fails at factory: the name in tcp://nosuch.example:80 does not resolve there"},
		{"unlisted", w.service("tcp", otherPort), at, "forbidden by the portal's own list", "It fails at factory: the [dial] list in its config does not admit " + w.service("tcp", otherPort)},
		{"silent", "tcp://" + gone.Addr().String() + ":80", 10*time.Second + at, "target timed out", "It fails at factory: tcp://" + gone.Addr().String() + ":80 does not answer"},
	}
	var forwards []forward
	for i, c := range cases {
		forwards = append(forwards, forward{c.name, fmt.Sprintf("tcp://127.0.0.1:%d", entryPort+i), c.target})
	}
	w.allow(forwards...)
	w.laptop.Run("ping", "--count", "1", "factory") // the tunnel is up: what follows is the time of a refusal
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			entry, exit := w.laptop.Process().Mark(), w.factory.Process().Mark()
			explained := make(chan struct{})
			go func() {
				defer close(explained)
				wantExplained(t, w.laptop, c.name, c.explain)
			}()
			w.wantTurnedAway(uint16(entryPort+i), c.within)
			<-explained
			wantLogged(t, w.laptop.Daemon, entry, "connection cut", "forward="+c.name, c.reason, "said-by=factory")
			wantLogged(t, w.factory.Daemon, exit, "refused to a peer", "peer=laptop", "forward="+c.name, c.reason)
		})
	}

	t.Run("denied", func(t *testing.T) {
		wantRefused(t, w.laptop.Host(), local(entryPort+99))
		out, err := w.laptop.Connect("factory", "tcp://127.0.0.1:22").CombinedOutput()
		if err == nil || !strings.Contains(string(out), `not granted; it needs a forward in the policy with from = "laptop stdio:"`) {
			t.Errorf("connect to what the policy denies: %v, %s", err, out)
		}
		wantExplained(t, w.laptop, "denied", `It fails at the server's policy: put the forward "denied" with the portal laptop there`)
	})

	t.Run("offline", func(t *testing.T) {
		w.factory.Stop()
		mark := w.laptop.Process().Mark()
		w.wantTurnedAway(entryPort, at)
		wantLogged(t, w.laptop.Daemon, mark, "connection refused", "forward=refused", "portal offline", "factory")
		wantExplained(t, w.laptop, "refused", "It fails at factory: that portal is not connected to the server")
		if status := w.laptop.Run("status"); !strings.Contains(status, "factory") {
			t.Errorf("status does not name the portal that is away:\n%s", status)
		}
	})

	t.Run("server gone", func(t *testing.T) {
		w.Server.Kill()
		waitServer(t, w.laptop, false)
		// For a moment clients still hear of the attempt before (250 ms). Then each waits whether factory comes to the relay of
		// a ticket.
		mark := w.laptop.Process().Mark()
		await.Within(t, "turned away because of the server", 2*at, func() error {
			w.wantTurnedAway(entryPort, at) // F9
			return logged(w.laptop.Daemon, mark, "connection refused", "forward=refused", "server unreachable")
		})
		wantExplained(t, w.laptop, "refused", "It fails between laptop and the server: check that the server runs at "+
			netip.AddrPortFrom(w.Server.Host().Addr(), 443).String())
	})
}
