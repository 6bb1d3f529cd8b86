package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

func TestServersWithoutAPortMeanTwo(t *testing.T) {
	got := Addresses([]string{"a.example", "b.example:8443", "192.0.2.1", "[2001:db8::1]", "2001:db8::2", "[2001:db8::3]:1"})
	want := []string{"a.example:443", "a.example:80", "b.example:8443", "192.0.2.1:443", "192.0.2.1:80",
		"[2001:db8::1]:443", "[2001:db8::1]:80", "[2001:db8::2]:443", "[2001:db8::2]:80", "[2001:db8::3]:1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// records keeps the messages of a log and when they came.
type records struct {
	slog.Handler
	mu    sync.Mutex
	texts []string
	times []time.Time
	most  int    // calls full when there are so many
	full  func() // may be nil
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := rec.Message
	rec.Attrs(func(a slog.Attr) bool { text += " " + a.Key + "=" + a.Value.String(); return true })
	r.texts, r.times = append(r.texts, text), append(r.times, time.Now())
	if r.full != nil && len(r.texts) >= r.most {
		r.full()
	}
	return nil
}

// deadAddress is one where nobody listens.
func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestPausesBetweenAttemptsGrowAndStayBounded(t *testing.T) {
	r := newRoles(t)
	dead := deadAddress(t)
	synctest.Test(t, func(t *testing.T) {
		log := &records{Handler: slog.DiscardHandler}
		d := r.dialer()
		d.Log = slog.New(log)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := d.Keep(ctx, []string{dead}, nil); err != nil {
			t.Errorf("Keep returned %v, want nil", err)
		}
		bound := firstBackoff
		for i := 1; i < len(log.times); i++ {
			if got := log.times[i].Sub(log.times[i-1]); got < bound/2 || got > bound {
				t.Errorf("pause %d of %v, want %v to %v", i, got, bound/2, bound)
			}
			bound = min(2*bound, maxBackoff)
		}
		if n := len(log.times); n < 30 || n > 70 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		if want := "server not reached error=dial server " + dead + ": connect: connection refused"; log.texts[0] != want {
			t.Errorf("logged %q, want %q", log.texts[0], want)
		}
	})
}

// TestKeepFindsTheServerThatAnswers has one address where nobody listens and
// a server that throws every connection out; the portal comes back each time,
// first to the address that worked.
func TestKeepFindsTheServerThatAnswers(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRoles(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			acc, err := Accept(context.Background(), raw, r.serverTLS())
			if err != nil {
				t.Error(err)
				return
			}
			c := WelcomePortal(acc, wire.Welcome{Version: wire.ControlVersion, Time: 5}, discard)
			c.Close(wire.ReasonShutdown, "restart")
			c.Run(context.Background(), nothing[wire.FromPortal](t))
		}
	})
	log := &records{Handler: slog.DiscardHandler}
	d := r.dialer()
	d.Log = slog.New(log)
	ctx, cancel := context.WithCancel(t.Context())
	times := 0
	var unused *portalConn
	err = d.Keep(ctx, []string{deadAddress(t), l.Addr().String()}, func(ctx context.Context, c *portalConn, w wire.Welcome) error {
		if w.Time != 5 {
			t.Errorf("welcome %+v", w)
		}
		if times++; times == 2 {
			cancel()
			unused = c
			return nil // without Run: Keep closes it
		}
		return c.Run(ctx, nothing[wire.ToPortal](t))
	})
	l.Close()
	served.Wait()
	if err != nil || times != 2 {
		t.Errorf("Keep returned %v after %d connections", err, times)
	}
	if _, err := unused.tls.NetConn().Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection that was never run is still open: %v", err)
	}
	all := strings.Join(log.texts, "\n")
	if strings.Count(all, "server not reached") != 1 || strings.Count(all, "connected to server address="+l.Addr().String()+" transport=tcp server=s") != 2 ||
		!strings.Contains(all, `server connection lost address=`+l.Addr().String()+` error=peer said: shutting down: "restart"`) {
		t.Errorf("log:\n%s", all)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if runtime.NumGoroutine() <= before {
			return
		}
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// TestPauseStartsAnewAfterALongConnection: who was connected for a while comes
// back soon, who is thrown out again and again comes back ever later.
func TestPauseStartsAnewAfterALongConnection(t *testing.T) {
	var b backoff
	for range 10 {
		b.pause(settled / 2)
	}
	if got := b.pause(0); got < maxBackoff/2 || got > maxBackoff {
		t.Errorf("after ten short connections: a pause of %v, want %v to %v", got, maxBackoff/2, maxBackoff)
	}
	if got := b.pause(settled + 1); got < firstBackoff/2 || got > firstBackoff {
		t.Errorf("after a long connection: a pause of %v, want %v to %v", got, firstBackoff/2, firstBackoff)
	}
}

// G7: where a server that was told of leads is judged by the address that is to be dialled, whatever it is called; what
// the configuration names is not.
func TestServersThatWereToldOfAreJudgedWhereTheyLead(t *testing.T) {
	r := newRoles(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var arrived atomic.Int64
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			arrived.Add(1)
			c.Close()
		}
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	named := []string{"localhost:" + port, "127.0.0.1:" + port, "[::ffff:127.0.0.1]:" + port}
	var judged []netip.Addr
	var mu sync.Mutex
	for _, c := range []struct {
		what             string
		configured, told []string
		want             bool
	}{{"told of", []string{deadAddress(t)}, named, false}, {"configured", named, nil, true}} {
		ctx, cancel := context.WithCancel(t.Context())
		log := &records{Handler: slog.DiscardHandler, most: len(c.configured) + len(c.told), full: cancel}
		d := r.dialer()
		d.Log = slog.New(log)
		d.More = func() []string { return c.told }
		d.Permit = func(a netip.Addr) error {
			mu.Lock()
			defer mu.Unlock()
			if judged = append(judged, a.Unmap()); a.Unmap().IsLoopback() {
				return errors.New("not there")
			}
			return nil
		}
		arrived.Store(0)
		if err := d.Keep(ctx, c.configured, nil); err != nil {
			t.Error(err)
		}
		if got := arrived.Load() > 0; got != c.want {
			t.Errorf("%s: %d connections arrived", c.what, arrived.Load())
		}
		if !c.want && (len(judged) < len(named) || !strings.Contains(strings.Join(log.texts, "\n"), "not there")) {
			t.Errorf("%s: %v were judged; logged %q", c.what, judged, log.texts)
		}
		cancel()
	}
	l.Close()
	served.Wait()
}
