package survive

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// F18: the NAT forgets a UDP mapping within 2 s of silence. What the far side says after a long silence arrives, and what
// is sent to keep the way open is little.
func TestMappingExpires(t *testing.T) {
	const keepalive, megabytes = 15 * time.Second, 5.0
	nat := topo.Symmetric
	nat.UDPTimeout = 2 * time.Second
	w := newWorld(t, plan{carriers: overQUIC, home: []topo.RouterOption{nat}})
	p := w.out(t)
	flow := dialUDP(t, w.laptop, local(outPort))
	await.Limit(t, flow)
	await.RoundTrip(t, flow, flow)
	arrived := w.laptop.Host().CountArrivals()
	silence := whole(20*time.Second, 5*time.Minute)
	await.Passing(t, silence)
	idle := arrived()
	perDay := float64(idle.Bytes) / silence.Seconds() * 24 * 3600 / 1e6
	t.Logf("idle for %v, laptop got %d packets, %d bytes: %.1f MB a day", silence, idle.Packets, idle.Bytes, perDay)
	// A packet every 2 s, of 52 bytes at least, makes 2.2 MB a day; this is one every 1.5 s and what else there is.
	if *full && perDay > megabytes {
		t.Errorf("it costs %.1f MB a day to keep the way open, want %.0f at most", perDay, megabytes)
	}
	await.Limit(t, p.Client)
	await.Limit(t, p.Service)
	start := time.Now()
	const line = "after a long silence"
	if _, err := io.WriteString(p.Service, line); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(p.Client, got); err != nil || string(got) != line {
		t.Fatalf("the client got %q, %v; want %q", got, err, line)
	}
	took := time.Since(start)
	t.Logf("it came after %v", took)
	if most := keepalive + time.Second; took > most {
		t.Errorf("it came after %v, want a keepalive's time and 1 s, %v, at most", took, most)
	}
	await.RoundTrip(t, p.Client, p.Service)
}

// F19: the NAT forgets everything, and maps what comes next to other ports.
func TestNATForgets(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.endures(t, w.natForgets())
	})
}

func (w *world) natForgets() fault {
	return fault{stall: 2 * time.Second, strike: w.home.ForgetMappings}
}

// F20: the NAT comes back from a reboot with another public address. The connection to the server is made anew as well.
func TestNATRenumbered(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		var back times
		w.endures(t, w.natRenumbered(t, &back))
		t.Logf("of %d times that %s: connected to the server again after %v", len(back), t.Name(), back)
	})
}

// natRenumbered adds to back how long laptop took each time until it was connected to the server again.
func (w *world) natRenumbered(t *testing.T, back *times) fault {
	const most = 3 * time.Second
	return fault{
		stall: most,
		strike: func() {
			w.home.Renumber()
			took := w.comesFrom(t, w.laptop, w.home.Addr4())
			if *back = append(*back, took); took > most+slack {
				t.Errorf("laptop was connected to the server again after %v, want %v at most", took, most)
			}
		},
		// A server lets no identity take over twice in 10 s: it might be used by two machines.
		mend: func() { await.Passing(t, whole(0, 10*time.Second)) },
	}
}

// comesFrom waits until the server has a portal's connection from that address, and returns how long that took.
func (w *world) comesFrom(t *testing.T, p *daemon.Portal, from netip.Addr) time.Duration {
	t.Helper()
	start := time.Now()
	await.Until(t, fmt.Sprintf("%s connected from %v", p.Name(), from), func() error {
		var list []struct {
			Name string
			From netip.AddrPort
		}
		if err := json.Unmarshal([]byte(w.Server.Run("portals", "--json")), &list); err != nil {
			return err
		}
		for _, seen := range list {
			if seen.Name == p.Name() && seen.From.Addr() == from {
				return nil
			}
		}
		return fmt.Errorf("the server has %v", list)
	})
	return time.Since(start)
}
