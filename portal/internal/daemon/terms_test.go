package daemon

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

func clients(t *testing.T, prefixes ...string) grant.Clients {
	t.Helper()
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	c, err := grant.NewClients(list)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dialFrom dials from one of this machine's addresses.
func (w *world) dialFrom(network, from, to string) net.Conn {
	w.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial(network, to)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil // before connect returned
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	return conn
}

// askFresh asks an echo by a new connection, which may be reset before it is made.
func (w *world) askFresh(address string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return ask(conn, "hello")
}

// conclusion returns what explain says in the end of a forward, and all its steps.
func (p *testPortal) conclusion(forward string) (works bool, text string) {
	p.w.Helper()
	list, err := asked[[]Explanation](p, CallExplain, ExplainArgs{Forward: forward})
	if err != nil || len(list) != 1 {
		p.w.Fatalf("explain %s: %v, %v", forward, list, err)
	}
	var b strings.Builder
	for _, s := range list[0].Steps {
		b.WriteString(s.State + " " + s.What + ": " + s.Text + "\n")
	}
	return list[0].Works, b.String() + list[0].Conclusion
}

func (p *testPortal) wantConclusion(forward string, works bool, parts ...string) {
	p.w.Helper()
	got, text := p.conclusion(forward)
	for _, part := range parts {
		if got != works || !strings.Contains(text, part) {
			p.w.Errorf("explain %s at %s: works %t, want %t and %q:\n%s", forward, p.name, got, works, part, text)
		}
	}
}

// TestClientsOfAGatewayMustBeGranted: others are reset at once and reach nothing,
// over TCP and UDP, are counted, and explain says so.
func TestClientsOfAGatewayMustBeGranted(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	one, dns := w.named("tcp", "one"), w.named("udp", "dns")
	web, udp := w.freePort("tcp"), w.freePort("udp")
	terms := grant.Terms{Clients: clients(t, "127.0.0.2/32", "2001:db8::/32")}
	w.terms("web", "tcp://"+web, "tcp://"+one.address, terms)
	g := w.terms("dns", "udp://"+udp, "udp://"+dns.address, terms)
	ann.waitState("web", Up)
	ann.waitState("dns", Up)
	for range 5 {
		if conn := w.dialFrom("tcp", "127.0.0.1", web); conn != nil {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a client that is not granted: %v, want a reset", err)
			}
		}
	}
	stranger := w.dialFrom("udp", "127.0.0.1", udp)
	io.WriteString(stranger, "who")
	if got := reach(w.dialFrom("tcp", "127.0.0.2", web)); got != "one" {
		t.Errorf("a client that is granted: %q", got)
	}
	friend := w.dialFrom("udp", "127.0.0.2", udp)
	if got := reach(friend); got != "dns" {
		t.Errorf("datagrams of a client that is granted: %q", got)
	}
	stranger.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := stranger.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("datagrams of one that is not: %d bytes, %v", n, err)
	}
	if f := ann.waitState("web", Up); f.Forbidden != 5 || f.Accepted != 1 {
		t.Errorf("web: %d forbidden, %d accepted", f.Forbidden, f.Accepted)
	}
	if f := ann.waitState("dns", Up); f.Forbidden != 1 || f.Accepted != 1 {
		t.Errorf("dns: %d forbidden, %d accepted", f.Forbidden, f.Accepted)
	}
	ann.wantConclusion("web", true, "5 connections or datagrams came from addresses that are not granted", "127.0.0.2/32")

	// A policy that takes the client away cuts what it has open.
	p := g.Permission
	p.Clients, p.Version = clients(t, "127.0.0.3/32"), w.nextVersion()
	w.grant(p)
	w.wait("the flow to be cut", func() bool {
		return ann.waitState("dns", Up).Terms.Clients == "127.0.0.3/32" && ann.Status().Tunnels[0].Flows == 0
	})
	io.WriteString(friend, "who")
	w.wait("it to be refused", func() bool { return ann.waitState("dns", Up).Forbidden == 2 })
}

// nextVersion begins another policy version.
func (w *world) nextVersion() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version++
	return w.version
}

// TestLimitsEndAtTheExitAndAreExplained: streams at once, and bytes of the month.
func TestLimitsEndAtTheExitAndAreExplained(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	echo := w.echo("tcp", "127.0.0.1:0")
	at, monthly := w.freePort("tcp"), w.freePort("tcp")
	w.terms("two", "tcp://"+at, "tcp://"+echo.Addr().String(), grant.Terms{Streams: 2, Rate: 50_000_000})
	w.terms("monthly", "tcp://"+monthly, "tcp://"+echo.Addr().String(), grant.Terms{Month: 300_000})
	ann.waitState("two", Up)
	ann.waitState("monthly", Up)
	factory.waitState("two", Up)
	first, second := w.dial("tcp", at), w.dial("tcp", at)
	for _, c := range []net.Conn{first, second} {
		if got, err := ask(c, "hello"); got != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if got, err := w.askFresh(at); err == nil {
		t.Errorf("a third at once: %q", got)
	}
	ann.wantConclusion("two", false, "2 at once are allowed", "a limit of the grant is reached")
	if f := factory.waitState("two", Up); f.Terms == nil || f.Terms.Open != 2 || f.Terms.Streams != 2 {
		t.Errorf("status %+v", f.Terms)
	}
	first.Close()
	w.wait("room for another", func() bool { got, _ := w.askFresh(at); return got == "hello" })

	conn, idle := w.dial("tcp", monthly), w.dial("tcp", monthly)
	if got, err := ask(idle, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	ann.wantConclusion("monthly", true, "at most 300000 bytes a month")
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, 1<<20))
		wrote <- err
	}()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := io.Copy(io.Discard, conn)
	if err == nil { // the system tells of a reset once: it was the writer who heard
		err = <-wrote
	}
	if err == nil || isTimeout(err) || n > 300_000 {
		t.Errorf("%d bytes came back, %v; want a reset at the limit", n, err)
	}
	idle.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was idle: %v, want a reset", err)
	}
	f := factory.waitState("monthly", Down)
	if f.Terms.MonthUsed != 300_000 || !strings.Contains(f.Why, "of the month are used up") {
		t.Errorf("status %+v, %s", f.Terms, f.Why)
	}
	ann.wantConclusion("monthly", false, "factory said: limit of the grant reached", "a limit of the grant is reached")
	factory.kill()
	again := w.run(factory.config, "factory")
	again.waitState("monthly", Down)
	w.wait("the tunnel anew", func() bool {
		_, text := ann.conclusion("monthly")
		return strings.Contains(text, "limit of the grant reached")
	})
}

// TestFirstLimitsCutWhatRanWithoutThem, and the applications begin anew under
// them.
func TestFirstLimitsCutWhatRanWithoutThem(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	p := g.Permission
	p.Rate, p.Version = 1_000_000, w.nextVersion()
	w.grant(p)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what ran without a limit: %v, want a reset", err)
	}
	again := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(again, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	p.Rate, p.Version = 2_000_000, w.nextVersion()
	w.grant(p)
	w.wait("the new rate", func() bool {
		f := factory.waitState("web", Up)
		return f.Terms.Rate == 2_000_000 && ann.waitState("web", Up).Terms.Rate == 2_000_000
	})
	if got, err := ask(again, "hello"); got != "hello" {
		t.Errorf("another rate has cut it: %q, %v", got, err)
	}
	began := time.Now()
	sent := bytes.Repeat([]byte("x"), 1_000_000)
	go again.Write(sent)
	again.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(again, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began).Seconds(); took < 0.35 {
		t.Errorf("a megabyte at 2 MB/s took %.2f s", took)
	}
}

// TestDirectOnlyOpensNothingOverARelay, and says why; "never" changes nothing
// there.
func TestDirectOnlyOpensNothingOverARelay(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	one := w.named("tcp", "one")
	only, never := w.freePort("tcp"), w.freePort("tcp")
	w.terms("only", "tcp://"+only, "tcp://"+one.address, grant.Terms{Direct: grant.DirectOnly})
	w.terms("never", "tcp://"+never, "tcp://"+one.address, grant.Terms{Direct: grant.DirectNever})
	ann.waitState("never", Up)
	if got := reach(w.dial("tcp", never)); got != "one" {
		t.Errorf("never: %q", got)
	}
	if conn, err := net.Dial("tcp", only); err == nil {
		if got := reach(conn); got == "one" {
			t.Error("only: it went over the relay")
		}
		conn.Close()
	}
	for _, p := range []*testPortal{ann, factory} {
		if f := p.waitState("only", Down); !strings.Contains(f.Why, "the policy allows direct paths only") {
			t.Errorf("%s: down because %q", p.name, f.Why)
		}
	}
	ann.wantConclusion("only", false, "It fails at the policy", "this portal's configuration none")
}

// TestOutsideItsHoursAForwardIsClosed, and says until when.
func TestOutsideItsHoursAForwardIsClosed(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	now := time.Now().UTC()
	later := uint8(1) << ((int(now.Weekday()) + 6 + 2) % 7) // the day after tomorrow
	hours, err := grant.NewHours("UTC0", []grant.Window{{Days: later, From: 600, Until: 660}})
	if err != nil {
		t.Fatal(err)
	}
	at := w.freePort("tcp")
	w.terms("hours", "tcp://"+at, "tcp://127.0.0.1:9", grant.Terms{Hours: hours})
	for _, p := range []*testPortal{ann, factory} {
		f := p.waitState("hours", Down)
		if !strings.Contains(f.Why, "outside the policy's hours") || !strings.Contains(f.Why, "they begin at "+hours.Next(now).Format(time.RFC3339)) {
			t.Errorf("%s: down because %q", p.name, f.Why)
		}
	}
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("it listens")
	}
	ann.wantConclusion("hours", false, "It fails at ann: it is outside the policy's hours")
}

// TestRefusedGrantsAreExplained: unsigned, altered, for another key, of an older
// policy; they are in status and explain, and go when the right one comes.
func TestRefusedGrantsAreExplained(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	put := func(g grant.Grant) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.grants = append(w.grants, g)
		w.sendGrantsLocked("ann")
		w.grants = w.grants[:len(w.grants)-1]
	}
	w.wait("a policy", func() bool { return ann.Status().Server.Policy == 1 })
	sign := func(name string, by func(*grant.Permission)) grant.Grant {
		p := w.permission(name, "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://127.0.0.1:9")
		by(&p)
		return grant.Sign(p, w.policy).Stamp(w.stamp, time.Now())
	}
	altered := sign("altered", func(*grant.Permission) {})
	altered.Target = endpoint.MustParse("tcp://127.0.0.1:22")
	unsigned := grant.Sign(sign("unsigned", func(*grant.Permission) {}).Permission, w.stamp).Stamp(w.stamp, time.Now())
	foreign := sign("foreign", func(p *grant.Permission) { p.Entry.Key = w.parties["factory"].Key })
	w.nextVersion()
	put(sign("right", func(*grant.Permission) {})) // and with it the version is complete
	w.wait("the version", func() bool { return ann.Status().Server.Policy == 2 })
	older := sign("older", func(p *grant.Permission) { p.Version = 1 })
	for _, g := range []grant.Grant{older, altered, unsigned, foreign} {
		put(g)
	}
	w.wait("four refusals", func() bool { return len(ann.Status().Refusals) == 4 })
	for forward, want := range map[string]string{
		"altered": "bad signature", "unsigned": "bad signature", "foreign": "neither is this portal with its key of now", "older": "is of policy version 1, and version 2",
	} {
		ann.wantConclusion(forward, false, "was refused: ", want, "It fails at ann, which does not take the grant")
	}
}
