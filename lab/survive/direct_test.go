package survive

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

// waitDirect waits until what runs goes directly from portal to portal.
func (w *world) waitDirect(t *testing.T) {
	t.Helper()
	start, path := time.Now(), ""
	for _, p := range []*daemon.Portal{w.laptop, w.factory} {
		await.Until(t, "on a direct path at "+p.Name(), func() error {
			for _, tunnel := range p.Status().Tunnels {
				if path = tunnel.Path; tunnel.Up && strings.HasPrefix(path, "direct") {
					return nil
				}
			}
			return fmt.Errorf("it has %+v", p.Status().Tunnels)
		})
	}
	t.Logf("%s after %v", path, time.Since(start))
}

// story is a fault of a direct path, with its name.
type story struct {
	name  string
	fault fault
}

// breaks tells stories of a direct path through both portals' NATs: whatever breaks it, what runs goes on by the relay, or
// on another direct path, and all is directly again before the next round.
func (w *world) breaks(t *testing.T, stories ...story) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) { w.endures(t, story.fault) })
	}
}

// F19, F20, F25, F28, F29 and F54 on a direct path: what lies between the portals breaks it.
func TestDirectPathBreaks(t *testing.T) {
	w := newWorld(t, plan{carriers: directly, laptop: []topo.HostOption{topo.Uplink(link.Shape{})}})
	loss := whole(2*time.Second, 10*time.Second)
	office := w.office.Addr4()
	next := 0
	w.breaks(t,
		story{"F19, the NAT forgets", w.natForgets()},
		story{"F20, the NAT has another address", fault{stall: 3 * time.Second, strike: func() { w.home.Renumber() }}},
		story{"F28, what laptop sends is lost", w.lineFor(t, loss, loss+2*time.Second, link.Shape{Loss: 1}, link.Shape{})},
		story{"F28, what laptop is sent is lost", w.lineFor(t, loss, loss+2*time.Second, link.Shape{}, link.Shape{Loss: 1})},
		story{"F25, the way shrinks and nobody is told", shrinks(w.home)},
		story{"F29, UDP is blocked", w.letsLittleThrough(topo.BlockUDP)},
		story{"F54, the direct path dies and appears", fault{stall: 2 * time.Second, rounds: 10, least: 3,
			strike: func() {
				if next++; next%2 == 1 {
					w.home.SetRules(topo.BlockUDPTo(office), topo.BlockTCPTo(office))
				}
			},
			mend: func() { w.home.SetRules() },
		}})
}

// F54, the other half: a direct path appears while what runs goes by the relay. Everything moves there, and datagrams notice
// nothing of it: none is lost, and none is late, though streams beside them have to begin on new connections.
func TestDirectPathAppears(t *testing.T) {
	const delay = 40 * time.Millisecond
	w := newWorld(t, plan{carriers: directly, laptop: []topo.HostOption{topo.Uplink(link.Shape{Delay: delay})}})
	office := w.office.Addr4()
	var gaps times
	for round := range whole(3, 20) {
		w.home.SetRules(topo.BlockUDPTo(office), topo.BlockTCPTo(office))
		pairs := []traffic.Pair{w.out(t), w.back(t)}
		await.Until(t, "on the relay's path", func() error {
			for _, tunnel := range w.laptop.Status().Tunnels {
				if strings.HasPrefix(tunnel.Path, "direct") {
					return fmt.Errorf("it has %+v", tunnel)
				}
			}
			return nil
		})
		streams := traffic.Start(t, traffic.Load{Rate: 8e6, Pairs: pairs})
		streams.Flows(await.Patience)
		await.Passing(t, 3*time.Second) // they have found out what the relay's path takes
		tr := traffic.Start(t, traffic.Load{Flow: dialUDP(t, w.laptop, local(outPort)), Beside: dialUDP(t, w.laptop, local(servicePort))})
		tr.Flows(await.Patience)
		w.home.SetRules()
		w.waitDirect(t)
		await.Passing(t, 3*time.Second) // flows follow streams a moment later
		tr.Flows(await.Patience)
		got := tr.End()
		t.Logf("round %d: %v; beside %v", round+1, got, streams.End())
		if got.Err != nil || got.Arrived != got.Sent {
			t.Errorf("round %d: %d of %d datagrams were lost; %v", round+1, got.Sent-got.Arrived, got.Sent, got.Err)
		}
		if most := 2*delay + 3*got.Machine; got.Gap > most { // a round trip is what they waited for among streams
			t.Errorf("round %d: a gap of %v between datagrams, want %v at most", round+1, got.Gap, most)
		}
		gaps = append(gaps, got.Gap)
	}
	t.Logf("gaps %v", gaps)
}

// F21 to F23 on a direct path: the portal's own interfaces break it.
func TestDirectPathRoams(t *testing.T) {
	w := newWorld(t, plan{carriers: directly, laptop: []topo.HostOption{topo.Uplink(link.Shape{})}})
	w.roaming()
	w.breaks(t,
		story{"F22, the old interface is dead", fault{stall: 5 * time.Second, strike: w.oldInterfaceDead(t).strike, mend: w.oldInterfaceDead(t).mend}},
		story{"F21, the address changes", w.addressChanges()},
		story{"F23, the link flaps", w.linkFlaps(t, whole(3, 30))})
}

// Many streams on a direct path spread over TCP connections, through both portals' NATs; where one of these dies the others
// go on, and carry what it had carried.
func TestStreamsSpreadOverDirectConnections(t *testing.T) {
	const stall = 2 * time.Second
	w := newWorld(t, plan{carriers: directTCP})
	l := traffic.Load{Pairs: []traffic.Pair{w.out(t)}, Rate: traffic.Rate / 4}
	w.waitDirect(t)
	l.Pairs = append(l.Pairs, w.back(t))
	await.Until(t, "a second connection", func() error {
		if list := w.directConnections(t); len(list) < 2 {
			return fmt.Errorf("there are %v", list)
		}
		return nil
	})
	for len(l.Pairs) < 8 {
		l.Pairs = append(l.Pairs, w.out(t), w.back(t))
	}
	tr := traffic.Start(t, l)
	tr.Flows(await.Patience)
	before := w.directConnections(t)
	await.Until(t, "bytes on each connection", func() error {
		for port, sent := range w.directConnections(t) {
			if sent < before[port]+1<<20 {
				return fmt.Errorf("%d bytes from port %d, and %d before", sent, port, before[port])
			}
		}
		return nil
	})
	w.home.Run("nft", "add", "table", "ip", "cut")
	w.home.Run("nft", "add", "chain", "ip", "cut", "forward", "{ type filter hook forward priority 0; }")
	for port := range before {
		for _, side := range []string{"sport", "dport"} {
			w.home.Run("nft", "add", "rule", "ip", "cut", "forward", "tcp", side, fmt.Sprint(port), "drop")
		}
		break
	}
	tr.Flows(stall + await.Patience)
	w.waitDirect(t)
	got := tr.End()
	if t.Log(got); got.Err != nil || got.Stall > stall+got.Slack() {
		t.Errorf("a stream stood still for %v, want %v at most: %v", got.Stall, stall, got.Err)
	}
}

// directConnections returns what laptop has sent on each TCP connection to factory's network that carries, by its port.
func (w *world) directConnections(t *testing.T) map[int]int {
	t.Helper()
	list := make(map[int]int)
	out := w.laptop.Host().Run("ss", "-HOtin", "state", "established", "dst", w.office.Addr4().String())
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		_, port, _ := strings.Cut(fields[2], ":")
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, f := range fields {
			if sent, ok := strings.CutPrefix(f, "bytes_sent:"); ok {
				list[number], _ = strconv.Atoi(sent)
			}
		}
	}
	return list
}

// F1, F9 and G3 on a direct path: server and relays are killed, and nothing that runs is disturbed; they come back, and the
// relay stands by again.
func TestDirectPathNeedsNobody(t *testing.T) {
	w := newWorld(t, plan{carriers: directly})
	w.endures(t, fault{
		stall: undisturbed, rounds: 3,
		strike: func() {
			for _, r := range w.relays {
				r.Kill()
			}
			await.Passing(t, whole(3*time.Second, time.Minute))
			w.Server.Kill()
			w.waitServer(t, false)
			await.Passing(t, whole(3*time.Second, 10*time.Minute))
			w.out(t) // and more is opened
			for _, r := range w.relays {
				r.Launch()
			}
			w.Server.Start()
			w.waitServer(t, true)
		},
		mend: w.waitReady,
	})
}

// G6 on a direct path: what a revoked portal has open is cut within 5 s, though no relay carries it.
func TestRevokedPortalLosesItsDirectPath(t *testing.T) {
	w := newWorld(t, plan{carriers: directly})
	p := w.out(t)
	w.waitDirect(t)
	w.Server.Run("revoke", "portal", w.laptop.Name())
	start := time.Now()
	await.Reset(t, "service", p.Service)
	await.Reset(t, "client", p.Client)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v until what the revoked portal had open was cut, want 5 s at most", took)
	}
}

// "only" carries nothing by a relay: what is opened waits for a direct path, for a while, and is refused then; what runs
// waits when that dies. "never" has none looked for. Both take effect at once, at both portals.
func TestPolicyChoosesPaths(t *testing.T) {
	w := newWorld(t, plan{carriers: directly})
	office := w.office.Addr4()
	shut := []topo.Rule{topo.BlockUDPTo(office), topo.BlockTCPTo(office)}
	direct := func(rule string) {
		t.Helper()
		w.Apply(strings.ReplaceAll(policy(w.forwards()...), "\nto = ", fmt.Sprintf("\ndirect = %q\nto = ", rule)))
		for _, p := range []*daemon.Portal{w.laptop, w.factory} {
			await.Until(t, "the new terms at "+p.Name(), func() error {
				for _, f := range p.Status().Forwards {
					if f.Terms.Direct != rule {
						return fmt.Errorf("it has %+v", f)
					}
				}
				return nil
			})
		}
	}
	direct("never")
	never := w.out(t)
	await.Passing(t, 2*time.Second)
	await.RoundTrip(t, never.Client, never.Service)
	w.wantPath(t, "relay")

	direct("only")
	await.Reset(t, "client", never.Client) // it begins anew, by the new terms
	only := w.out(t)
	w.wantPath(t, "direct")
	w.home.SetRules(shut...)
	await.Until(t, "off the direct path", func() error {
		for _, f := range w.laptop.Status().Forwards {
			if f.State == "up" || !strings.Contains(f.Why, "the policy allows direct paths only") {
				return fmt.Errorf("it has %+v", f)
			}
		}
		return nil
	})
	start := time.Now()
	conn, err := w.laptop.Host().DialContext(t.Context(), "tcp", local(outPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	await.Limit(t, conn)
	await.Reset(t, "a client that comes meanwhile", conn)
	t.Logf("it was refused after %v", time.Since(start))
	w.home.SetRules()
	start = time.Now()
	await.Limit(t, only.Client)
	await.Limit(t, only.Service)
	await.RoundTrip(t, only.Client, only.Service)
	t.Logf("what ran went on %v after a direct path could be had", time.Since(start))
	w.wantPath(t, "direct")
}

// wantPath wants laptop's tunnel to be on a path of that kind.
func (w *world) wantPath(t *testing.T, kind string) {
	t.Helper()
	for _, tunnel := range w.laptop.Status().Tunnels {
		if !tunnel.Up || !strings.HasPrefix(tunnel.Path, kind) {
			t.Errorf("the tunnel to %s is by %q, want %s", tunnel.Peer, tunnel.Path, kind)
		}
	}
}
