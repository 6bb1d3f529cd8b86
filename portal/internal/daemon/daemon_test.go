package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
)

// ask sends one line and returns what comes back.
func ask(conn net.Conn, line string) (string, error) {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, line); err != nil {
		return "", err
	}
	b := make([]byte, len(line))
	_, err := io.ReadFull(conn, b)
	return string(b), err
}

func (w *world) dial(network, address string) net.Conn {
	w.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	return conn
}

// pair is two portals and a granted TCP forward to an echo server.
func (w *world) pair() (ann, factory *testPortal, g grant.Grant) { return w.pairWith("") }

// pairWith is pair with more in the configuration of both.
func (w *world) pairWith(more string) (ann, factory *testPortal, g grant.Grant) {
	ann, factory = w.portal("ann", more), w.portal("factory", more)
	target := w.echo("tcp", "127.0.0.1:0")
	g = w.grant(w.permission("web", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://"+target.Addr().String()))
	ann.waitState("web", Up)
	factory.waitState("web", Up)
	return ann, factory, g
}

func TestForwardCarriesStreamsAndHalfCloses(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	sent := bytes.Repeat([]byte("netport "), 1<<17)
	go func() {
		conn.Write(sent)
		conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if f := ann.waitState("web", Up); !strings.Contains(f.Why, "tunnel to factory over relay relay-1") {
		t.Errorf("it knows that the forward is up by %q", f.Why)
	}
}

func TestForwardBetweenUnixSockets(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	dir := w.short()
	w.echo("unix", dir+"/target")
	w.grant(w.permission("app", "ann", "unix://"+dir+"/listen", "factory", "unix://"+dir+"/target"))
	ann.waitState("app", Up)
	if info, err := os.Stat(dir + "/listen"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info.Mode(), err)
	}
	if got, err := ask(w.dial("unix", dir+"/listen"), "hello"); got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	ann.stop()
	if _, err := os.Lstat(dir + "/listen"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestForwardKeepsDatagramsOfEverySize(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	listen := w.freePort("udp")
	w.grant(w.permission("dns", "ann", "udp://"+listen, "factory", "udp://"+target.LocalAddr().String()))
	ann.waitState("dns", Up)
	one, two := w.dial("udp", listen), w.dial("udp", listen)
	buf := make([]byte, 1<<16)
	for i, size := range []int{1, 0, 1472, wire.MaxDatagram, 0} {
		for _, client := range []net.Conn{one, two} {
			sent := bytes.Repeat([]byte{byte(i)}, size)
			deadline := time.Now().Add(10 * time.Second)
			client.SetDeadline(deadline)
			target.SetReadDeadline(deadline)
			if _, err := client.Write(sent); err != nil {
				t.Fatal(err)
			}
			n, from, err := target.ReadFrom(buf)
			if err != nil || !bytes.Equal(buf[:n], sent) {
				t.Fatalf("size %d: target got %d bytes, %v", size, n, err)
			}
			if _, err := target.WriteTo(sent, from); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(buf); err != nil || !bytes.Equal(buf[:n], sent) {
				t.Fatalf("size %d: client got %d bytes, %v", size, n, err)
			}
		}
	}
	if s := ann.Status(); len(s.Tunnels) != 1 || s.Tunnels[0].Flows != 2 {
		t.Errorf("tunnels %+v, want one with a flow for each client", s.Tunnels)
	}
}

func TestRemovedForwardIsCutAndItsListenerClosed(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	w.revoke(g)
	if b, err := io.ReadAll(conn); err == nil {
		t.Errorf("a stream whose grant was removed ended cleanly after %q", b)
	}
	w.wait("the forward gone", func() bool { return len(ann.Status().Forwards) == 0 && len(factory.Status().Forwards) == 0 })
	if conn, err := net.Dial("tcp", g.Listen.HostPort()); err == nil {
		conn.Close()
		t.Error("the listener of a removed forward is open")
	}
}

func TestRenamedForwardKeepsItsStreams(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	w.version++
	p := g.Permission
	p.Forward, p.Version = "renamed", w.version
	w.grant(p)
	w.revoke(g)
	ann.waitState("renamed", Up)
	if got, err := ask(conn, "still here"); got != "still here" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestServerOutageChangesNothingThatRuns(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "before"); got != "before" {
		t.Fatalf("got %q, %v", got, err)
	}
	w.stopServer()
	w.wait("both portals without a server", func() bool {
		return !ann.Status().Server.Connected && !factory.Status().Server.Connected
	})
	if got, err := ask(conn, "during"); got != "during" {
		t.Errorf("a running stream: %q, %v", got, err)
	}
	if got, err := ask(w.dial("tcp", g.Listen.HostPort()), "new"); got != "new" {
		t.Errorf("a new stream over the tunnel there is: %q, %v", got, err)
	}
	ann.waitState("web", Up)
	w.startServer()
	w.wait("both portals connected", func() bool {
		return ann.Status().Server.Connected && factory.Status().Server.Connected
	})
	if got, err := ask(conn, "after"); got != "after" {
		t.Errorf("after the outage: %q, %v", got, err)
	}
}

func TestBothPortalsOpenAtOnce(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	back := w.grant(w.permission("back", "factory", "tcp://"+w.freePort("tcp"), "ann", g.Target.String()))
	factory.waitState("back", Up)
	ann.waitState("back", Up)
	type result struct {
		got string
		err error
	}
	results := make(chan result)
	for _, at := range []string{g.Listen.HostPort(), back.Listen.HostPort()} {
		conn := w.dial("tcp", at)
		go func() {
			got, err := ask(conn, at)
			results <- result{got, err}
		}()
	}
	for range 2 {
		if r := <-results; r.err != nil {
			t.Errorf("got %q, %v", r.got, r.err)
		}
	}
}

// The server ends a session that crossed another, in the moment it announced
// it. Whoever waits for a tunnel gets the other's.
func TestReplacedSessionIsNotNoticed(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	w.mu.Lock()
	w.crossing = true
	w.mu.Unlock()
	if got, err := ask(w.dial("tcp", g.Listen.HostPort()), "hello"); got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	w.wait("one tunnel", func() bool { return len(ann.Status().Tunnels) == 1 })
	if s := ann.Status().Tunnels[0]; s.Opener || !s.Up {
		t.Errorf("tunnel %+v, want the other portal's", s)
	}
}

func TestServerThatDoesNotAnswerIsSaid(t *testing.T) {
	w := newWorld(t)
	ann, _, _ := w.pair()
	w.mu.Lock()
	w.silent = true
	w.mu.Unlock()
	_, err := asked[PingResult](ann, CallPing, PingArgs{Portal: "factory"})
	if err == nil || !strings.Contains(err.Error(), "no tunnel: server unreachable: the server did not answer within 5s") {
		t.Errorf("ping: %v", err)
	}
}

func TestTargetLearnsItsClient(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	target := w.echo("tcp", "127.0.0.1:0") // sends the header back, too
	p := w.permission("web", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://"+target.Addr().String())
	p.Proxy = 1
	w.grant(p)
	ann.waitState("web", Up)
	factory.waitState("web", Up)
	conn := w.dial("tcp", p.Listen.HostPort())
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	_, from, _ := net.SplitHostPort(conn.LocalAddr().String())
	want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %s %d\r\nhello", from, p.Listen.Port())
	if got, err := io.ReadAll(conn); string(got) != want || err != nil {
		t.Errorf("target read %q, %v; want %q", got, err, want)
	}
}

func TestAddressInUseIsSaidAndRetried(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w.grant(w.permission("web", "ann", "tcp://"+taken.Addr().String(), "factory", "tcp://127.0.0.1:1"))
	var f Forward
	w.wait("the reason", func() bool {
		f = ann.waitState("web", Down)
		return strings.Contains(f.Why, "address already in use; another program listens there")
	})
	taken.Close()
	ann.waitState("web", Up)
}

func TestListenListOfTheOwnerWins(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", "[listen]\nallow = [\"tcp://127.0.0.1:1\"]\n"), w.portal("factory", "")
	at := w.freePort("tcp")
	w.grant(w.permission("web", "ann", "tcp://"+at, "factory", "tcp://127.0.0.1:1"))
	w.wait("the reason", func() bool {
		return strings.Contains(ann.waitState("web", Down).Why, "not in the [listen] list")
	})
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("it listens all the same")
	}
}

// asked asks a portal over its socket.
func asked[T any](p *testPortal, command string, args any) (T, error) {
	var result T
	err := local.Call(context.Background(), p.config.Socket, command, args, &result)
	return result, err
}

func TestConnectJoinsACallerWithATarget(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	target := w.echo("tcp", "127.0.0.1:0")
	uri, closed := "tcp://"+target.Addr().String(), "tcp://"+w.freePort("tcp")
	w.grant(w.permission("shell", "ann", "stdio:", "factory", uri))
	w.grant(w.permission("closed", "ann", "stdio:", "factory", closed))
	ann.waitState("shell", Up)
	factory.waitState("closed", Up)

	connect := func(target, token string) (string, error, error) {
		conn, err := local.Stream(t.Context(), ann.config.Socket, CallConnect, ConnectArgs{Portal: "factory", Target: target, Token: token})
		if err != nil {
			return "", err, nil
		}
		defer conn.Close()
		io.WriteString(conn, "hello")
		conn.CloseWrite()
		b, _ := io.ReadAll(conn)
		_, outcome := asked[any](ann, CallOutcome, OutcomeArgs{Token: token})
		return string(b), nil, outcome
	}
	if got, err, outcome := connect(uri, "a"); got != "hello" || err != nil || outcome != nil {
		t.Errorf("got %q, %v, outcome %v", got, err, outcome)
	}
	if _, err, outcome := connect(closed, "b"); err != nil || outcome == nil || !strings.Contains(outcome.Error(), "factory said: target refused") {
		t.Errorf("a target that refuses: %v, outcome %v", err, outcome)
	}
	if _, err, _ := connect("tcp://127.0.0.1:9", "c"); err == nil || !strings.Contains(err.Error(), "not granted") {
		t.Errorf("a target that is not granted: %v", err)
	}
}

func TestPingMeasuresTheTunnelInBothDirections(t *testing.T) {
	w := newWorld(t)
	ann, factory, _ := w.pair()
	for _, c := range []struct {
		from *testPortal
		to   string
	}{{ann, "factory"}, {factory, "ann"}} {
		r, err := asked[PingResult](c.from, CallPing, PingArgs{Portal: c.to})
		if err != nil || r.RTT <= 0 || !strings.HasPrefix(r.Path, "relay relay-1 at 127.0.0.1:") {
			t.Errorf("ping %s: %+v, %v", c.to, r, err)
		}
	}
	if _, err := asked[PingResult](ann, CallPing, PingArgs{Portal: "nobody"}); err == nil || !strings.Contains(err.Error(), "no grant joins") {
		t.Errorf("ping nobody: %v", err)
	}
}

func TestExplainNamesTheMachineThatFails(t *testing.T) {
	w := newWorld(t)
	ann, factory, _ := w.pair()
	w.grant(w.permission("closed", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://"+w.freePort("tcp")))
	w.grant(w.permission("metadata", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://169.254.169.254:80"))
	w.grant(w.permission("dns", "ann", "udp://"+w.freePort("udp"), "factory", "udp://"+w.freePort("udp")))
	ann.waitState("closed", Up)
	ann.waitState("metadata", Up)
	ann.waitState("dns", Up)
	w.wait("factory's grants", func() bool { return len(factory.Status().Forwards) == 4 })
	check := func(p *testPortal, forward string, works bool, conclusion string) {
		t.Helper()
		list, err := asked[[]Explanation](p, CallExplain, ExplainArgs{Forward: forward})
		if err != nil || len(list) != 1 {
			t.Fatalf("explain %s: %v, %v", forward, list, err)
		}
		if e := list[0]; e.Works != works || !strings.Contains(e.Conclusion, conclusion) {
			text, _ := json.MarshalIndent(e, "", " ")
			t.Errorf("explain %s: works %t, want %t and %q\n%s", forward, e.Works, works, conclusion, text)
		}
	}
	check(ann, "web", true, "It works, from tcp://")
	check(factory, "web", true, "It works at factory")
	check(ann, "closed", false, "It fails at factory: nothing listens at tcp://")
	check(factory, "closed", false, "It fails at factory: nothing listens at tcp://")
	check(ann, "metadata", false, "It fails at factory: tcp://169.254.169.254:80 leads to an address")
	check(ann, "dns", true, "It works")
	check(ann, "typo", false, "It fails at the server's policy")
	factory.stop()
	w.wait("factory offline", func() bool { online, known := ann.client.Online("factory"); return known && !online })
	w.wait("tunnel gone", func() bool { return len(ann.Status().Tunnels) == 0 })
	check(ann, "web", false, "It fails at factory: that portal is not connected")
	if f := ann.waitState("web", Down); f.Why != "factory is not connected to the server" {
		t.Errorf("down because %q", f.Why)
	}
	factory = w.portal("factory", "")
	ann.waitState("web", Up)
	w.tellRelay(false)
	if f := ann.waitState("web", Down); f.Why != "factory is connected to the server, and no relay is" {
		t.Errorf("down because %q", f.Why)
	}
	w.tellRelay(true)
	ann.waitState("web", Up)
	factory.stop()
	w.stopServer()
	w.wait("no server", func() bool { return !ann.Status().Server.Connected })
	// The answer of a moment ago, "offline", may still stand.
	w.wait("another answer", func() bool {
		list, err := asked[[]Explanation](ann, CallExplain, ExplainArgs{Forward: "web"})
		return err == nil && strings.Contains(list[0].Conclusion, "It fails between ann and the server")
	})
}

func TestSecondDaemonOnOneSocketIsRefused(t *testing.T) {
	w := newWorld(t)
	ann := w.portal("ann", "")
	if _, err := New(ann.config, w.log); err == nil || !strings.Contains(err.Error(), "listen on socket") {
		t.Errorf("second daemon: %v", err)
	}
}

// TestSecondDaemonOnOneStateIsRefused: by another configuration, with a socket of its
// own, and also by another name of the folder.
func TestSecondDaemonOnOneStateIsRefused(t *testing.T) {
	w := newWorld(t)
	ann := w.portal("ann", "")
	c := ann.config
	c.Socket = filepath.Join(w.short(), "s")
	c.State = filepath.Join(w.short(), "state")
	if err := os.Symlink(ann.config.State, c.State); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, w.log); err == nil || !strings.Contains(err.Error(), "hold state "+c.State+": another daemon runs there") {
		t.Errorf("second daemon: %v", err)
	}
	ann.stop()
	w.run(c, "ann")
}

func TestKeyThatOthersCanReadIsRefused(t *testing.T) {
	w := newWorld(t)
	ann := w.portal("ann", "")
	c := ann.config
	c.Socket = filepath.Join(w.short(), "s")
	ann.stop()
	if err := os.Chmod(c.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, w.log); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("key of mode 0644: %v", err)
	}
}
