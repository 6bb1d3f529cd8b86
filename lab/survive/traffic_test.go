package survive

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/traffic"
)

// connect opens a connection through the tunnel.
func connect(t *testing.T, from *daemon.Portal, port uint16, service net.Listener) traffic.Pair {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	client, err := from.Host().DialContext(ctx, "tcp", local(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	await.Limit(t, client)
	p := traffic.Pair{Client: client, Service: await.Accept(t, service)}
	await.RoundTrip(t, p.Client, p.Service)
	return p
}

// dialUDP opens a flow: through the tunnel, or past it.
func dialUDP(t *testing.T, from *daemon.Portal, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := from.Host().DialContext(t.Context(), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// out opens a connection from laptop to factory's service, and back the other way round.
func (w *world) out(t *testing.T) traffic.Pair  { return connect(t, w.laptop, outPort, w.atFactory) }
func (w *world) back(t *testing.T) traffic.Pair { return connect(t, w.factory, backPort, w.atLaptop) }

// load is a stream opened by each portal, and datagrams; or many streams in all, which share the same rate.
func (w *world) load(t *testing.T, f fault) traffic.Load {
	t.Helper()
	l := traffic.Load{
		Rate:   f.rate,
		Pairs:  []traffic.Pair{w.out(t), w.back(t)},
		Flow:   dialUDP(t, w.laptop, local(outPort)),
		Beside: dialUDP(t, w.laptop, local(servicePort)), // on laptop itself, out of reach of what breaks
	}
	if f.many > 0 {
		l.Rate, l.Block = traffic.Rate/int64(f.many), 1<<10
	}
	if w.carriers == directly {
		w.waitDirect(t)
	}
	for len(l.Pairs) < f.many {
		l.Pairs = append(l.Pairs, w.out(t), w.back(t))
	}
	return l
}

// fault is something that breaks while traffic runs.
type fault struct {
	strike func() // makes it break; what passes again has passed when it returns
	// stall is the longest that a stream may stand still, and p95 what all but one of 20 rounds must keep; 0: no such limit.
	stall, p95 time.Duration
	// gap is the longest between two datagrams; 0: as long as a stream may stand still.
	gap    time.Duration
	after  time.Duration // the longest from the return of strike until everything flows; 0: no such limit
	many   int           // streams, more than a few; 0: one of each portal
	rate   int64         // bits per second of each stream; 0: traffic.Rate
	mend   func()        // makes the world whole for the next round; nil if it is
	rounds int           // with -full; 0: 20
	least  int           // rounds without -full; 0: 1
}

// times are how long something took, by round.
type times []time.Duration

// p95 is what all but one of 20 rounds kept.
func (t times) p95() time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	return sorted[(95*len(sorted)+99)/100-1]
}

func (t times) String() string {
	sorted := slices.Sorted(slices.Values(t))
	return fmt.Sprintf("%.3f s median, %.3f p95, %.3f most", sorted[len(sorted)/2].Seconds(), t.p95().Seconds(), sorted[len(sorted)-1].Seconds())
}

// endures has the world live through a fault, again and again, and returns what became of the last round's traffic.
func (w *world) endures(t *testing.T, f fault) (got traffic.Outcome) {
	t.Helper()
	if f.gap == 0 {
		f.gap = f.stall
	}
	if f.rounds == 0 {
		f.rounds = 20
	}
	rounds := whole(max(f.least, 1), f.rounds)
	var stalls, gaps times
	for round := range rounds {
		got = w.round(t, f)
		t.Logf("round %d: %v", round+1, got)
		if got.Err != nil {
			t.Fatalf("round %d: %v", round+1, got.Err)
		}
		if most := f.stall + got.Slack(); got.Stall > most {
			t.Errorf("round %d: a stream stood still for %v, want %v at most", round+1, got.Stall, most)
		}
		if most := f.gap + got.Slack(); got.Gap > most {
			t.Errorf("round %d: a gap of %v between datagrams, want %v at most", round+1, got.Gap, most)
		}
		stalls, gaps = append(stalls, got.Stall), append(gaps, got.Gap)
	}
	t.Logf("of %d rounds of %s: stalls %v; gaps %v", rounds, t.Name(), stalls, gaps)
	if p95 := stalls.p95(); rounds > 1 && f.p95 > 0 && p95 > f.p95 {
		t.Errorf("19 of 20 rounds stood still for up to %v, want %v", p95, f.p95)
	}
	return got
}

// round lives through a fault once.
func (w *world) round(t *testing.T, f fault) traffic.Outcome {
	t.Helper()
	tr := traffic.Start(t, w.load(t, f))
	tr.Flows(await.Patience)
	w.randomly(t)
	f.strike()
	struck := time.Now()
	tr.Flows(f.stall + await.Patience)
	took := time.Since(struck)
	got := tr.End()
	if f.after > 0 && took > f.after+got.Slack() {
		t.Errorf("it took %v until everything flowed again, want %v at most", took, f.after)
	}
	if f.mend != nil {
		f.mend()
	}
	return got
}
