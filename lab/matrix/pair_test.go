package matrix

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/traffic"
)

const (
	// switchTime is the longest that row F54 of the threat list lets what runs stand still.
	switchTime = 2 * time.Second
	// waits is after how long a pair that may be direct, and is not, has failed; and probes is how long the quick part of a
	// search takes, after which one that cannot be direct is taken to stay so.
	waits  = 20 * time.Second
	probes = 3 * time.Second
	// settles is when datagrams have left the relay: a direct path settles within 5 seconds, and that is looked at for one.
	settles = 10 * time.Second
	// bitsPerSecond is each stream's, in each direction.
	bitsPerSecond = 2e6
)

// meeting is what became of a pair.
type meeting struct {
	a, b    *site
	theory  bool   // it can be direct
	path    string // at last, as both say
	started time.Time
	found   time.Duration // from when the path by the relay stood until the slower portal knew of a direct way; 0: not said
	took    time.Duration // the same until it had a carrier there; 0: never
	outcome traffic.Outcome
}

// rounds is how many round trips a time is.
func rounds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()/roundTrip.Seconds()) }

// meet has two portals meet, and what runs between them checked.
func (w *world) meet(t *testing.T, m *meeting, i, j int) {
	t.Helper()
	m.a, m.b = w.a[i], w.b[j]
	tr := w.start(t, m, i, j)
	if m.theory {
		await.Within(t, "direct", waits, func() error { return m.direct() })
	} else {
		await.Passing(t, probes)
	}
	tr.Flows(switchTime + await.Patience)
	m.path = m.agreed(t)
	if isDirect := strings.HasPrefix(m.path, "direct"); isDirect != m.theory {
		t.Errorf("the path is %s, theory says direct: %t", m.path, m.theory)
	}
	m.measure(t)
	w.checkRelay(t, m, tr)
	m.outcome = tr.End()
	if m.outcome.Err != nil {
		t.Error(m.outcome.Err)
	}
	if most := switchTime + m.outcome.Slack(); max(m.outcome.Stall, m.outcome.Gap) > most {
		t.Errorf("%v; want %v at most", m.outcome, most)
	}
}

// start opens a stream and a flow, which bring the tunnel up, and has both run before there is a direct path.
func (w *world) start(t *testing.T, m *meeting, i, j int) *traffic.Traffic {
	t.Helper()
	port := entryPort + uint16(j)
	client := dial(t, m.a, "tcp", port)
	service := await.Accept(t, w.services[j][i])
	m.started = time.Now()
	tr := traffic.Start(t, traffic.Load{
		Pairs:    []traffic.Pair{{Client: client, Service: service}},
		Flow:     dial(t, m.a, "udp", port).(*net.UDPConn),
		Beside:   dial(t, m.a, "udp", echoPort).(*net.UDPConn),
		Rate:     bitsPerSecond,
		Block:    1 << 10,
		Interval: 20 * time.Millisecond,
	})
	tr.Flows(await.Patience)
	return tr
}

func dial(t *testing.T, s *site, network string, port uint16) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	conn, err := s.Host().DialContext(ctx, network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// direct says why the pair has no direct carrier at one of its portals.
func (m *meeting) direct() error {
	for _, at := range [][2]*site{{m.a, m.b}, {m.b, m.a}} {
		if _, ok := logged(at[0].Log(), at[1].Name(), `msg="carrier up"`, "path=direct"); !ok {
			return fmt.Errorf("%s has no direct carrier", at[0].Name())
		}
	}
	return nil
}

// agreed is the path that both portals say they take.
func (m *meeting) agreed(t *testing.T) (path string) {
	t.Helper()
	await.Within(t, "on one path", waits, func() error {
		atA, err := m.a.path(m.b)
		if err != nil {
			return err
		}
		atB, err := m.b.path(m.a)
		if err == nil && atA != atB && strings.HasPrefix(atA+atB, "direct") {
			err = fmt.Errorf("%s and %s", atA, atB)
		}
		path = atA
		return err
	})
	return path
}

// measure reads from the portals' logs how long the way to the direct path was.
func (m *meeting) measure(t *testing.T) {
	t.Helper()
	var relayed, found, direct time.Time // of the later
	for _, at := range [][2]*site{{m.a, m.b}, {m.b, m.a}} {
		log, peer := at[0].Log(), at[1].Name()
		relay, ok := logged(log, peer, `msg="carrier up"`, "path=relay")
		if !ok {
			t.Errorf("%s does not say when the path by the relay stood:\n%s", at[0].Name(), log)
		}
		relayed = later(relayed, relay)
		first, _ := logged(log, peer, `msg="direct way found"`)
		found = later(found, first)
		up, _ := logged(log, peer, `msg="carrier up"`, "path=direct")
		direct = later(direct, up)
	}
	if !direct.IsZero() {
		m.took = direct.Sub(relayed)
	}
	if m.took > 2*roundTrip && m.started.After(direct) {
		t.Error("nothing ran yet when the direct path came: the test shows nothing of the switch")
	}
	if !found.IsZero() {
		m.found = found.Sub(relayed)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// logged is when a line of a log about a peer with all the texts was written first.
func logged(log, peer string, texts ...string) (at time.Time, ok bool) {
lines:
	for line := range strings.Lines(log) {
		for _, text := range append(texts, "peer="+peer+" ") {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		return at, err == nil
	}
	return time.Time{}, false
}

// checkRelay wants the relay to carry what runs, or hardly anything any more. Datagrams leave it when the direct path has
// settled (package tunnel).
func (w *world) checkRelay(t *testing.T, m *meeting, tr *traffic.Traffic) {
	t.Helper()
	const window = time.Second
	const ran = bitsPerSecond / 8 // in each direction
	carried := func() (bytes float64, took time.Duration) {
		before, began := w.carried(m.a, m.b), time.Now()
		await.Passing(t, window)
		tr.Flows(await.Patience)
		took = time.Since(began)
		return float64(w.carried(m.a, m.b) - before), took
	}
	if m.theory {
		await.Within(t, "past the relay", settles, func() error {
			if got, took := carried(); got > ran*took.Seconds()/10 {
				return fmt.Errorf("the relay still carried %.0f bytes in %v", got, took)
			}
			return nil
		})
	} else if got, took := carried(); got < ran*window.Seconds()/2 {
		t.Errorf("the relay carried %.0f bytes in %v, want what runs", got, took)
	}
}
