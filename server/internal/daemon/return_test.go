package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
)

// F10: every portal is back, knows its grants and holds its ticket soon after its
// server is. The worst case is a server that is back at once: then the portals'
// pauses have not spread them yet.
func TestPortalsComeBackWithTheirServer(t *testing.T) {
	const portals = 100
	c := newCrowd(t, portals)
	all, slowest := c.restart()
	t.Logf("%d portals back after %v, the slowest connected for %v", portals, all, slowest)
	if all > 30*time.Second || slowest > 5*time.Second {
		t.Errorf("back after %v, want 30 s; the slowest connected for %v, want 5 s", all, slowest)
	}
}

// The same with the number of F10. Portals and server share the machine.
func BenchmarkThousandPortalsComeBack(b *testing.B) {
	const portals = 1000
	c := newCrowd(b, portals)
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		all, slowest := c.restart()
		b.ReportMetric(all.Seconds(), "s/all")
		b.ReportMetric(slowest.Seconds(), "s/p99-connect")
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(used.Seconds()/float64(b.N), "s-cpu/op")
}

// crowd is many portals that share a grant with one, and keep their connections.
type crowd struct {
	r     *rig
	names []string

	mu    sync.Mutex               // guards the following
	ready map[string]time.Duration // how long it took each to connect and hear all
	grown chan struct{}            // capacity 1
}

func newCrowd(t testing.TB, n int) *crowd {
	t.Helper()
	c := &crowd{names: []string{"plant"}, ready: make(map[string]time.Duration), grown: make(chan struct{}, 1)}
	for i := range n - 1 {
		c.names = append(c.names, fmt.Sprintf("p%d", i))
	}
	c.r = newRig(t, append([]string{"relay-1"}, c.names...)...)
	var policy strings.Builder
	fmt.Fprintf(&policy, "domain = \"example.org\"\n[groups]\nall = [%q", c.names[1])
	for _, n := range c.names[2:] {
		fmt.Fprintf(&policy, ", %q", n)
	}
	policy.WriteString("]\n[[forward]]\nname = \"web\"\nfrom = \"all tcp://127.0.0.1:80\"\nto = \"plant tcp://10.0.0.5:80\"\n")
	c.r.shutdown()
	service, err := admin.Open(c.r.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	result, err := service.Policy(t.Context(), admin.PolicyRequest{Step: admin.PolicyApply, File: "policy.toml", Source: policy.String()})
	if service.Close(); err != nil || !result.Applied {
		t.Fatalf("not applied: %+v, %v", result, err)
	}
	c.r.start()
	keep(c.r, "relay-1", wire.ParseToRelay, func(conn *control.Conn[wire.ToRelay, wire.FromRelay], _ time.Time) func(wire.ToRelay) {
		conn.Send(relayReady)
		return func(wire.ToRelay) {}
	})
	for _, name := range c.names {
		want := 1 // tickets
		if name == "plant" {
			want = n - 1
		}
		keep(c.r, name, wire.ParseToPortal, func(_ *control.Conn[wire.ToPortal, wire.FromPortal], since time.Time) func(wire.ToPortal) {
			grants, tickets := 0, 0
			return func(m wire.ToPortal) {
				switch m.(type) {
				case wire.PutGrant:
					grants++
				case wire.Ticket:
					tickets++
				default:
					return
				}
				if grants == want && tickets == want {
					c.note(name, time.Since(since))
				}
			}
		})
	}
	c.wait()
	return c
}

// keep keeps the connection of a portal or relay until the test is over. begin
// is called for each, with the time when it was dialled, and returns what
// takes its messages.
func keep[In, Out wire.Message](r *rig, name string, parse func(wire.Type, []byte) (In, error), begin func(*control.Conn[In, Out], time.Time) func(In)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	r.t.Cleanup(func() { cancel(); done.Wait() })
	d := dialer[In, Out](r, name, parse)
	var dialled time.Time
	d.More = func() []string { dialled = time.Now(); return nil } // it is asked before each round
	done.Go(func() {
		d.Keep(ctx, []string{r.cfg.Address}, func(ctx context.Context, conn *control.Conn[In, Out], _ wire.Welcome) error {
			take := begin(conn, dialled)
			return conn.Run(ctx, func(m In) error { take(m); return nil })
		})
	})
}

func (c *crowd) note(name string, took time.Duration) {
	c.mu.Lock()
	c.ready[name] = took
	c.mu.Unlock()
	select {
	case c.grown <- struct{}{}:
	default:
	}
}

// wait waits until all have heard all.
func (c *crowd) wait() {
	c.r.t.Helper()
	late := time.After(2 * time.Minute)
	for {
		c.mu.Lock()
		n := len(c.ready)
		c.mu.Unlock()
		if n == len(c.names) {
			return
		}
		select {
		case <-c.grown:
		case <-late:
			c.r.t.Fatalf("%d of %d portals are back", n, len(c.names))
		}
	}
}

// restart restarts the server. It returns when all were back, counted from when
// the server was, and the 99th percentile of how long it took a portal from its dial on.
func (c *crowd) restart() (all, slow time.Duration) {
	c.r.t.Helper()
	c.r.shutdown()
	c.mu.Lock()
	clear(c.ready)
	c.mu.Unlock()
	c.r.start()
	began := time.Now()
	c.wait()
	all = time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []time.Duration
	for _, d := range c.ready {
		list = append(list, d)
	}
	slices.Sort(list)
	return all, list[len(list)*99/100]
}
