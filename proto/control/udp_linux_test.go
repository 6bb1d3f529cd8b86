package control

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/overquic/overquictest"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

// listenUDP serves portals over UDP at an address, until the test ends. Each connection is given to use.
func (r roles) listenUDP(t *testing.T, address string, use func(*serverConn)) {
	t.Helper()
	overquictest.Serve(t, netip.MustParseAddrPort(address), r.serverTLS(), func(ctx context.Context, stream *overquic.Conn) {
		if a, err := Greeted(ctx, stream); err == nil { // else who has dialled tells
			use(WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion, Time: uint64(testNow.Unix())}, discard))
		}
	})
}

// serve keeps a connection until it ends.
func serve(t *testing.T) func(*serverConn) {
	return func(c *serverConn) { c.Run(context.Background(), nothing[wire.FromPortal](t)) }
}

// keepOnce runs Keep until it has connected, and returns how, and what was reported meanwhile.
func keepOnce(t *testing.T, d *Dialer[wire.ToPortal, wire.FromPortal], addresses ...string) (way Way, took time.Duration, failed string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var list []string
	d.Failed = func(_ string, err error) { list = append(list, err.Error()) }
	d.Reached = func(w Way) { way = w }
	began := time.Now()
	err := d.Keep(ctx, addresses, func(_ context.Context, c *portalConn, _ wire.Welcome) error {
		took = time.Since(began)
		if network := c.RemoteAddr().Network(); (network == "udp") != way.UDP {
			t.Errorf("it goes over %s, and %+v was reported", network, way)
		}
		cancel()
		return c.Run(ctx, nothing[wire.ToPortal](t))
	})
	if err != nil {
		t.Error(err)
	}
	return way, took, strings.Join(list, "\n")
}

// swallows takes TCP connections and says nothing.
func swallows(t *testing.T) string {
	return listen(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	})
}

// Where TCP is shut without a word, UDP to the same port takes its place, soon; and where that was the
// way before, at once.
func TestUDPWhereTCPIsSilent(t *testing.T) {
	r := newRoles(t)
	port := deaf(t)
	r.listenUDP(t, port, serve(t))
	d := r.dialer()
	way, took, failed := keepOnce(t, d, port)
	if (way != Way{port, true}) || took > portStagger+time.Second || failed != "" {
		t.Errorf("reached by %+v after %v; failed: %s", way, took, failed)
	}
	d = r.dialer()
	d.Last = func() Way { return Way{port, true} }
	if way, again, _ := keepOnce(t, d, port); !way.UDP || again >= took {
		t.Errorf("the second time by %+v after %v, the first time it was %v", way, again, took)
	}
}

// Where TCP is taken by something that swallows what is sent, UDP takes its place too.
func TestUDPWhereTCPIsSwallowed(t *testing.T) {
	r := newRoles(t)
	port := swallows(t)
	r.listenUDP(t, port, serve(t))
	if way, took, _ := keepOnce(t, r.dialer(), port); !way.UDP || took > onlyUDPTime+2*time.Second {
		t.Errorf("reached by %+v after %v", way, took)
	}
}

// TCP wins wherever it passes, even if UDP was the way before.
func TestTCPIsTakenWhereItPasses(t *testing.T) {
	r := newRoles(t)
	var over atomic.Int32
	port := listen(t, func(conn net.Conn) {
		if a, err := Accept(context.Background(), conn, r.serverTLS()); err == nil {
			serve(t)(WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion, Time: uint64(testNow.Unix())}, discard))
		}
	})
	r.listenUDP(t, port, func(c *serverConn) { over.Add(1); serve(t)(c) })
	for _, last := range []Way{{}, {port, true}} {
		d := r.dialer()
		d.Last = func() Way { return last }
		if way, _, _ := keepOnce(t, d, port); (way != Way{port, false}) {
			t.Errorf("after %+v by %+v", last, way)
		}
	}
	if n := over.Load(); n != 0 {
		t.Errorf("%d greetings came over UDP", n)
	}
}

// A server that refuses TCP is being started anew, most often: UDP is no way then, until it has done so
// a few times on end.
func TestUDPWhereTCPIsRefused(t *testing.T) {
	r := newRoles(t)
	port := deadAddress(t)
	r.listenUDP(t, port, serve(t))
	d := r.dialer()
	if _, _, err := d.Dial(t.Context(), port); err == nil || !strings.HasSuffix(err.Error(), "connection refused") {
		t.Errorf("dialled once: %v", err)
	}
	d.Last = func() Way { return Way{port, true} }
	conn, _, err := d.Dial(t.Context(), port)
	if err != nil {
		t.Fatalf("dialled where UDP was the way: %v", err)
	}
	conn.end(nil)
	way, took, failed := keepOnce(t, r.dialer(), port)
	if !way.UDP || strings.Count(failed, "refused") != refusals || took > 3*time.Second {
		t.Errorf("reached by %+v after %v; failed:\n%s", way, took, failed)
	}
}

// A round in which nothing is there but silence over UDP does not hold up the next one over TCP.
func TestSilenceOverUDPIsNotWaitedForLong(t *testing.T) {
	r := newRoles(t)
	port := deadAddress(t)
	at, _ := net.ResolveUDPAddr("udp", port)
	silent, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	var list []string
	r.dialer().dial(t.Context(), []string{port}, Way{}, true, nil, func(_ string, err error) { list = append(list, err.Error()) })
	if took := time.Since(began); took < udpAlone/2 || took > udpAlone+time.Second {
		t.Errorf("over after %v", took)
	}
	if want := []string{"dial server " + port + ": connect: connection refused"}; !slices.Equal(list, want) {
		t.Errorf("failed: %q, want %q", list, want)
	}
}

// Where UDP was the way, a server that is away for a moment is not waited for over TCP, which nobody answers.
func TestSilenceOverTCPIsNotWaitedForLong(t *testing.T) {
	r := newRoles(t)
	port := deaf(t)
	began := time.Now()
	conn, _, _ := r.dialer().dial(t.Context(), []string{port}, Way{port, true}, false, nil, func(string, error) {})
	if took := time.Since(began); conn != nil || took < udpAlone/2 || took > udpAlone+time.Second {
		t.Errorf("over after %v", took)
	}
}

func TestWaysInTheirOrder(t *testing.T) {
	tcp, udp := func(a string) Way { return Way{a, false} }, func(a string) Way { return Way{a, true} }
	through, err := proxy.New("http://proxy.example:3128", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		addresses []string
		last      Way
		through   *proxy.Settings
		want      []Way
	}{
		"at first":        {[]string{"a:443", "a:80"}, Way{}, nil, []Way{tcp("a:443"), tcp("a:80"), udp("a:443"), udp("a:80")}},
		"UDP was the way": {[]string{"a:80", "a:443"}, udp("a:80"), nil, []Way{tcp("a:80"), udp("a:80"), tcp("a:443"), udp("a:443")}},
		"of another":      {[]string{"a:80"}, udp("b:80"), nil, []Way{tcp("a:80"), udp("a:80")}},
		"with a proxy":    {[]string{"a:443", "a:80"}, udp("a:443"), through, []Way{tcp("a:443"), tcp("a:80")}},
	} {
		if got := ways(c.addresses, c.last, c.through); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What a portal learns of a network by silence it learns over TCP alone; over UDP somebody always speaks.
func TestNothingIsLearnedOfSilenceOverUDP(t *testing.T) {
	r := newRoles(t)
	port := deaf(t)
	r.listenUDP(t, port, serve(t))
	d := r.dialer()
	d.Pauses = func() *Pauses { return NewPauses(Learned{}, func() {}) }
	conn, _, err := d.Dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.end(nil)
	if conn.pauses != nil || conn.pause() != udpQuiet {
		t.Errorf("it asks after %v, and learns by it: %v", conn.pause(), conn.pauses != nil)
	}
}

// The server hears the last word of a portal that ends right behind it.
func TestGoodbyeIsHeardOverUDP(t *testing.T) {
	r := newRoles(t)
	port := deaf(t)
	ended := make(chan error, 1)
	r.listenUDP(t, port, func(c *serverConn) { ended <- c.Run(context.Background(), nothing[wire.FromPortal](t)) })
	conn, _, err := r.dialer().Dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(wire.ReasonShutdown, "bye")
	from := conn.LocalAddr().(*net.UDPAddr)
	if err := conn.Run(t.Context(), nothing[wire.ToPortal](t)); err != nil {
		t.Error(err)
	}
	again, err := net.ListenUDP("udp", from)
	if err != nil {
		t.Fatalf("it was over before its socket was: %v", err)
	}
	again.Close()
	var bye *Goodbye
	if err := <-ended; !errors.As(err, &bye) || bye.Text != "bye" {
		t.Errorf("the server heard %v", err)
	}
}

// TestConnect: what enrols, or asks as an admin, finds UDP too.
func TestConnect(t *testing.T) {
	r := newRoles(t)
	secure := func() (*tls.Config, int) {
		return r.portal.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")), 7
	}
	quiet := deaf(t)
	r.listenUDP(t, quiet, serve(t))
	began := time.Now()
	conn, with, err := Connect(t.Context(), nil, quiet, secure)
	if err != nil || with != 7 || conn.RemoteAddr().Network() != "udp" || time.Since(began) > udpAfter+time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	conn.Close()

	passes := listen(t, func(conn net.Conn) {
		c, err := Handshake(context.Background(), conn, r.serverTLS())
		if err == nil {
			c.Read(make([]byte, 1))
		}
	})
	conn, _, err = Connect(t.Context(), nil, passes, secure)
	if err != nil || conn.RemoteAddr().Network() != "tcp" {
		t.Fatal(err)
	}
	conn.Close()

	dead := deadAddress(t)
	began = time.Now()
	_, _, err = Connect(t.Context(), nil, dead, secure)
	if !errors.As(err, new(*UnreachedError)) || !strings.HasPrefix(err.Error(), "connect: connection refused (over UDP: ") || time.Since(began) > time.Second {
		t.Errorf("nobody is there: after %v %v", time.Since(began), err)
	}
	at, _ := net.ResolveUDPAddr("udp", dead)
	silent, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began = time.Now()
	if _, _, err := Connect(t.Context(), nil, dead, secure); err == nil || err.Error() != "connect: connection refused" || time.Since(began) > udpAlone+time.Second {
		t.Errorf("TCP is refused, and UDP silent: after %v %v", time.Since(began), err)
	}
	through, err := proxy.New("http://"+dead, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if _, _, err := Connect(t.Context(), through, "server.example:443", secure); !errors.As(err, new(*proxy.Error)) || strings.Contains(err.Error(), "UDP") || time.Since(began) > time.Second {
		t.Errorf("by a proxy that is not there: after %v %v", time.Since(began), err)
	}
}

// Two failures of one address are one report.
func TestFailuresOfBothAreOneReport(t *testing.T) {
	var f failures
	f.add(Way{"a:1", true}, errors.New("late"))
	f.add(Way{"a:1", false}, errors.New("shut"))
	f.add(Way{"a:1", false}, errors.New("shut again"))
	f.add(Way{"b:1", true}, errors.New("silent"))
	f.add(Way{"c:1", false}, errors.New("gone"))
	f.forget("c:1")
	var got []string
	f.report([]string{"a:1", "b:1", "c:1"}, func(address string, err error) { got = append(got, address+" "+err.Error()) })
	if want := []string{"a:1 shut; over UDP: late", "b:1 over UDP: silent"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
