package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// target serves connections by reading them, or by writing without end.
func target(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return "tcp://" + l.Addr().String()
}

func drain(conn net.Conn) { io.Copy(io.Discard, conn) }

// openFor is open of something that is over when its context ends.
func (w *world) openFor(ctx context.Context, kind wire.OpenKind, g grant.Grant) (net.Conn, error) {
	conn, err := w.exit.Open(ctx, tunnel.From{Peer: w.entry.cert}, wire.Open{Kind: kind, Grant: g.ID()})
	if err == nil {
		w.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func reasonIs(err error, want wire.Reason) bool {
	end, ok := errors.AsType[*tunnel.EndError](err)
	return ok && end.Reason == want
}

func TestStreamsAtOnceAreLimited(t *testing.T) {
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	g := w.grant(target(t, drain), func(p *grant.Permission) { p.Streams = 2 })
	first, end := context.WithCancel(t.Context())
	conn, err := w.openFor(first, wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing but the number is limited: the connection is as it was dialled.
	if _, plain := conn.(*net.TCPConn); !plain {
		t.Errorf("the connection is a %T", conn)
	}
	if _, err := w.openFor(t.Context(), wire.OpenStream, g); err != nil {
		t.Fatal(err)
	}
	if _, err := w.openFor(t.Context(), wire.OpenStream, g); !reasonIs(err, wire.ReasonLimit) {
		t.Errorf("a third: %v", err)
	}
	if _, err := w.openFor(t.Context(), wire.OpenProbe, g); !reasonIs(err, wire.ReasonLimit) {
		t.Errorf("a probe says %v while no third may be opened", err)
	}
	if use := w.exit.Use(g); use.Open != 2 {
		t.Errorf("%d are counted", use.Open)
	}
	end()
	for err = errors.New(""); err != nil; {
		if _, err = w.openFor(t.Context(), wire.OpenStream, g); err != nil && !reasonIs(err, wire.ReasonLimit) {
			t.Fatal(err)
		}
	}
	// A dial that fails counts no more.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	none := w.grant("tcp://"+l.Addr().String(), func(p *grant.Permission) { p.Streams = 1 })
	for range 3 {
		ctx, over := context.WithCancel(t.Context())
		if _, err := w.openFor(ctx, wire.OpenStream, none); !reasonIs(err, wire.ReasonTargetRefused) {
			t.Fatal(err)
		}
		over()
		for w.exit.Use(none).Open != 0 {
			runtime.Gosched()
		}
	}
}

// TestRateHoldsBothWaysByBackPressure: three streams of one grant, written to and
// read from as fast as they take it.
func TestRateHoldsBothWaysByBackPressure(t *testing.T) {
	const rate = 4_000_000
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	g := w.grant(target(t, func(conn net.Conn) {
		var both sync.WaitGroup
		both.Go(func() { drain(conn) })
		both.Go(func() {
			b := make([]byte, 1<<16)
			for {
				if _, err := conn.Write(b); err != nil {
					return
				}
			}
		})
		both.Wait()
	}), func(p *grant.Permission) { p.Rate = rate })
	const streams = 3
	var up, down [streams]int64
	var running sync.WaitGroup
	begun := time.Now()
	for i := range streams {
		conn, err := w.openFor(t.Context(), wire.OpenStream, g)
		if err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(time.Second, func() { conn.Close() })
		defer stop.Stop()
		running.Go(func() {
			b := make([]byte, 1<<18)
			for n, err := 0, error(nil); err == nil; up[i] += int64(n) {
				n, err = conn.Write(b)
			}
		})
		running.Go(func() {
			b := make([]byte, 1<<18)
			for n, err := 0, error(nil); err == nil; down[i] += int64(n) {
				n, err = conn.Read(b)
			}
		})
	}
	running.Wait()
	took := time.Since(begun).Seconds()
	for way, each := range map[string][streams]int64{"up": up, "down": down} {
		var sum, least int64
		for i, n := range each {
			sum += n
			if i == 0 || n < least {
				least = n
			}
		}
		// A burst of a tenth of a second comes on top.
		if most := rate * (took + 0.15); float64(sum) > most || float64(sum) < 0.7*rate*took {
			t.Errorf("%s: %d bytes in %.2f s", way, sum, took)
		}
		if float64(least) < 0.2*float64(sum) {
			t.Errorf("%s: the streams got %v", way, each)
		}
	}
}

// TestMonthIsCountedAndKept: what has used up its bytes is cut with the reason, a
// portal that is killed has lost nothing of it, a clock that is set back wins
// nothing, and the next month begins at zero.
func TestMonthIsCountedAndKept(t *testing.T) {
	now := time.Date(2027, 1, 31, 23, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		now = at
	}
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	w.config.Now = clock
	w.exit = New(w.config)
	w.run()
	g := w.grant(target(t, drain), func(p *grant.Permission) { p.Month = 100_000 })
	conn, err := w.openFor(t.Context(), wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	idle, err := w.openFor(t.Context(), wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	if use := w.exit.Use(g); use.Month != 60_000 || !use.Until.Equal(time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("use %+v", use)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, 200_000))
		wrote <- err
	}()
	c := <-w.cuts
	if c.reason != wire.ReasonLimit || len(c.ids) != 1 || c.ids[0] != g.ID() {
		t.Errorf("cut %+v", c)
	}
	conn.Close() // as the tunnel does for what is cut
	idle.Close()
	if err := <-wrote; err == nil {
		t.Error("all of it was written")
	}
	if use := w.exit.Use(g); use.Month != 100_000 {
		t.Errorf("%d bytes are counted", use.Month)
	}
	full := func(what string) {
		t.Helper()
		if _, err := w.openFor(t.Context(), wire.OpenStream, g); !reasonIs(err, wire.ReasonLimit) {
			t.Errorf("%s: %v, want the limit", what, err)
		}
	}
	full("used up")
	// The file was written before anything was cut: nothing stops this portal in
	// order.
	killed := func() { w.exit = New(w.config) }
	killed()
	full("after it was killed")
	set(now.AddDate(0, -1, 0))
	full("with a clock that was set back by a month")
	killed()
	full("and after it was killed with that")
	set(time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC))
	if _, err := w.openFor(t.Context(), wire.OpenStream, g); err != nil {
		t.Errorf("in the next month: %v", err)
	}
	set(now.Add(-time.Second))
	if _, err := w.openFor(t.Context(), wire.OpenStream, g); err != nil {
		t.Errorf("a second before it by a clock that was set back: %v", err)
	}
}

func (w *world) wait(what string, is func() bool) {
	w.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !is(); <-tick.C {
		if time.Now().After(deadline) {
			w.Fatalf("waited for %s", what)
		}
	}
}

// TestMonthIsKeptWhenItStops, for its own pair of ends.
func TestMonthIsKeptWhenItStops(t *testing.T) {
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	stop := w.run()
	g := w.grant(target(t, drain), func(p *grant.Permission) { p.Month = 1_000_000 })
	conn, err := w.openFor(t.Context(), wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(make([]byte, 5000))
	stop()
	again := New(w.config)
	if use := again.Use(g); use.Month != 5000 {
		t.Errorf("%d bytes are kept", use.Month)
	}
	if got := again.Use(w.grant("tcp://127.0.0.1:1", func(p *grant.Permission) { p.Month = 7 })); got.Month != 0 {
		t.Errorf("another pair has %d", got.Month)
	}
}

// TestBadUsageFileIsPutAside: whatever is in it, the portal starts, says so and
// leaves the file to be looked at.
func TestBadUsageFileIsPutAside(t *testing.T) {
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	g := w.grant(target(t, drain), func(p *grant.Permission) { p.Month = 1_000_000 })
	stop := w.run()
	conn, err := w.openFor(t.Context(), wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(make([]byte, 5000))
	stop()
	file := filepath.Join(w.config.State, usageFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{"empty": {}, "garbage": []byte(strings.Repeat("x", 200))}
	for i := range good {
		cases["cut"] = good[:i]
		flipped := append([]byte(nil), good...)
		flipped[i] ^= 1
		cases["flipped"] = flipped
		for what, b := range cases {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			w.log.Reset()
			if use := New(w.config).Use(g); use.Month != 0 {
				t.Fatalf("%s at %d: %d bytes", what, i, use.Month)
			}
			if kept, err := os.ReadFile(file + ".bad"); err != nil || string(kept) != string(b) || !strings.Contains(w.log.String(), "counted from zero") {
				t.Fatalf("%s at %d: kept %q, %v; log %s", what, i, kept, err, w.log)
			}
		}
	}
}

// TestFlowAboveItsLimitLosesDatagrams, and counts them; the flow goes on.
func TestFlowAboveItsLimitLosesDatagrams(t *testing.T) {
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	g := w.grant("udp://"+to.LocalAddr().String(), func(p *grant.Permission) { p.Rate = 10_000 })
	conn, reason := w.open(wire.OpenFlow, g)
	if reason != wire.ReasonNone {
		t.Fatal(reason)
	}
	const sent = 100
	for range sent {
		if n, err := conn.Write(make([]byte, 1000)); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	lost := w.exit.Counters().Limited
	if lost < 50 || lost >= sent {
		t.Fatalf("%d of %d datagrams are lost, at a tenth of a second's burst of one", lost, sent)
	}
	b := make([]byte, 2000)
	for range sent - int(lost) {
		if n, _, err := to.ReadFrom(b); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
}

// TestTermsChangeForWhatRuns: a grant with another rate and another number counts
// for what is open already.
func TestTermsChangeForWhatRuns(t *testing.T) {
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	to := target(t, drain)
	g := w.grant(to, func(p *grant.Permission) { p.Rate, p.Streams = 1, 1 })
	conn, err := w.openFor(t.Context(), wire.OpenStream, g)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, 100_000)) // a day
		wrote <- err
	}()
	wide := w.grant(to, func(p *grant.Permission) { p.Version, p.Rate, p.Streams = 2, 100_000_000, 2 })
	if _, err := w.openFor(t.Context(), wire.OpenStream, wide); err != nil {
		t.Errorf("a second stream by the new terms: %v", err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("what was open: %v", err)
	}
}

// TestClientsAndPathsAreCheckedAtTheExitToo: it takes the entry's word for who they are,
// but not against the grant.
func TestClientsAndPathsAreCheckedAtTheExitToo(t *testing.T) {
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	to := target(t, drain)
	g := w.grant(to, func(p *grant.Permission) { p.Clients = clients(t, "192.168.7.0/24") })
	for source, want := range map[string]wire.Reason{"192.168.7.5:1": 0, "[::ffff:192.168.7.5]:1": 0, "192.168.8.5:1": wire.ReasonClientForbidden, "": wire.ReasonClientForbidden} {
		open := wire.Open{Kind: wire.OpenStream, Grant: g.ID(), Source: addrPort(source)}
		conn, err := w.exit.Open(t.Context(), tunnel.From{Peer: w.entry.cert}, open)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != (want == 0) || err != nil && !reasonIs(err, want) {
			t.Errorf("a client at %q: %v, want %v", source, err, want)
		}
	}
	for i, tt := range []struct {
		terms  grant.Direct
		direct bool // the carrier
		ok     bool
	}{
		{grant.DirectAny, false, true}, {grant.DirectAny, true, true},
		{grant.DirectOnly, false, false}, {grant.DirectOnly, true, true},
		{grant.DirectNever, false, true}, {grant.DirectNever, true, false},
	} {
		g := w.grant(to, func(p *grant.Permission) { p.Version, p.Direct = uint64(2+i), tt.terms })
		conn, err := w.exit.Open(t.Context(), tunnel.From{Peer: w.entry.cert, Direct: tt.direct}, wire.Open{Kind: wire.OpenStream, Grant: g.ID()})
		if err == nil {
			conn.Close()
		}
		if (err == nil) != tt.ok || err != nil && !reasonIs(err, wire.ReasonNotDirect) {
			t.Errorf("direct %v, on a carrier that is direct: %v: %v", tt.terms, tt.direct, err)
		}
	}
}

// TestFlowIsCutWhenTheMonthIsUsedUp: nothing of it passes any more, in either
// direction.
func TestFlowIsCutWhenTheMonthIsUsedUp(t *testing.T) {
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	w.run()
	g := w.grant("udp://"+to.LocalAddr().String(), func(p *grant.Permission) { p.Month = 2500 })
	conn, reason := w.open(wire.OpenFlow, g)
	if reason != wire.ReasonNone {
		t.Fatal(reason)
	}
	conn.Write(make([]byte, 1000))
	b := make([]byte, 2000)
	_, client, err := to.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	to.WriteTo(make([]byte, 1000), client)
	if n, err := conn.Read(b); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	for range 5 { // for the first of them there is no room
		conn.Write(make([]byte, 1000))
	}
	if c := <-w.cuts; c.reason != wire.ReasonLimit {
		t.Errorf("cut %+v", c)
	}
	if lost := w.exit.Counters().Limited; lost != 5 {
		t.Errorf("%d datagrams are lost", lost)
	}
	to.WriteTo(make([]byte, 1000), client)
	got := make(chan error, 1)
	go func() {
		_, err := conn.Read(b)
		got <- err
	}()
	w.wait("the answer to be dropped", func() bool { return w.exit.Counters().Limited == 6 })
	conn.Close()
	if err := <-got; err == nil {
		t.Error("an answer has passed")
	}
}
