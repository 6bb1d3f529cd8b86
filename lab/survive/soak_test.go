package survive

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

var soakFor = flag.Duration("soak", 0, "how long TestSoak goes on; 0: for a handful of faults")

// trouble is a fault with a name, and what became of those who lived through it.
type trouble struct {
	name string
	fault
	stalls times
	over   int // rounds in which a limit was not kept
}

// troubles are the faults that connections outlive, of rows F1 to F31, and some more, each with the limit that its own story
// has. What ends connections by its nature (a portal killed, or asleep for longer than the other waits) is not among them.
func (w *world) troubles(t *testing.T) (list []*trouble) {
	const outage = 10 * time.Second
	add := func(name string, f fault) { list = append(list, &trouble{name: name, fault: f}) }
	add("F1 relay killed", w.relayKilled(t))
	add("F2 relay silent", w.relaySilent(t))
	add("F8 all relays down", w.allRelaysDown(t, outage))
	add("F9 server killed", w.serverAway(t, w.Server.Kill, outage))
	add("F15 laptop suspended", w.portalSuspended(t, w.laptop, outage))
	add("F15 factory suspended", w.portalSuspended(t, w.factory, outage))
	add("F19 NAT forgets", w.natForgets())
	add("F20 NAT renumbered", w.natRenumbered(t, new(times)))
	add("F21 address changes", w.addressChanges())
	add("F22 interface dead", w.oldInterfaceDead(t))
	add("F23 link flaps", w.linkFlaps(t, 3))
	add("F25 MTU shrinks", shrinks(w.home))
	add("F26 bad line", w.lineFor(t, outage, outage, rungs[4], rungs[4]))
	garbled := w.lineFor(t, outage, 2*time.Second, garbling, garbling)
	garbled.rate = 5e6
	add("F27 line garbles", garbled)
	add("F28 deaf", w.lineFor(t, outage, outage+2*time.Second, link.Shape{}, link.Shape{Loss: 1}))
	add("F28 dumb", w.lineFor(t, outage, outage+2*time.Second, link.Shape{Loss: 1}, link.Shape{}))
	add("F29 no UDP", w.letsLittleThrough(topo.BlockUDP))
	add("F29 TCP 443 alone", w.letsLittleThrough(topo.BlockUDP, topo.AllowTCP(443)))
	add("F31 server silent", w.serverSilent(t, outage))
	add("F41 relay stopped", w.relayAskedToStop(t))
	add("F42 server stopped", w.serverAway(t, w.Server.Stop, time.Second))
	add("F47 name lost", w.serversNameLost(t, dnsmessage.RCodeServerFailure))
	add("F51 relay stalls", w.relayStalls(t))
	return list
}

// soaking is a world that is in trouble for a long time.
type soaking struct {
	*world
	t        *testing.T
	begun    time.Time
	troubles []*trouble
	bag      []*trouble // those that have not come up since all had
	lasting  *traffic.Traffic
	memory   memory
}

// F50: one trouble after another, in an order that dice choose, while streams that were opened before all of them go on, and
// others that are opened for each. No byte is lost, no stream stands still for longer than the trouble allows, and no
// daemon grows: by 1 MB an hour at most, when the first hour is over, which is judged if there are two.
func TestSoak(t *testing.T) {
	streams, pause, few := 100, time.Minute, 0
	if *soakFor == 0 {
		streams, pause, few = 20, time.Second, 5
	} else {
		stage.EnterIdle(t) // no place is taken for hours
	}
	w := newWorld(t, plan{carriers: overBoth, names: true, laptop: []topo.HostOption{topo.Uplink(link.Shape{})}, lab: []topo.Option{topo.NoCapture()}})
	w.roaming()
	s := &soaking{world: w, t: t, begun: time.Now(), troubles: w.troubles(t)}
	defer s.report()
	slow := traffic.Load{Rate: 16e3, Block: 1 << 10}
	for len(slow.Pairs) < streams {
		slow.Pairs = append(slow.Pairs, w.out(t), w.back(t))
	}
	s.lasting = traffic.Start(t, slow)
	for n := 0; n < few || time.Since(s.begun) < *soakFor; n++ {
		next := time.Now().Add(pause)
		s.endure(s.next())
		s.rest(time.Until(next))
	}
	got := s.lasting.End()
	t.Logf("%d streams lasted for %v and carried %d bytes", streams, time.Since(s.begun).Round(time.Second), got.Bytes)
	if got.Err != nil {
		t.Error(got.Err)
	}
}

// next draws a trouble; all come up equally often.
func (s *soaking) next() *trouble {
	if len(s.bag) == 0 {
		s.bag = slices.Clone(s.troubles)
	}
	i := s.dice.IntN(len(s.bag))
	drawn := s.bag[i]
	s.bag = slices.Delete(s.bag, i, i+1)
	return drawn
}

// endure lives through a trouble once.
func (s *soaking) endure(tr *trouble) {
	got := s.round(s.t, tr.fault)
	mended := time.Now()
	s.lasting.Flows(2 * await.Patience)
	s.t.Logf("%s %s: %v; all that lasts flows %v later", mended.Format(time.TimeOnly), tr.name, got, time.Since(mended).Round(time.Millisecond))
	if got.Err != nil {
		s.t.Errorf("%s: %v", tr.name, got.Err)
	}
	tr.stalls = append(tr.stalls, got.Stall)
	if most := tr.stall + got.Slack(); max(got.Stall, got.Gap) > most {
		tr.over++
		s.t.Errorf("%s: a stream stood still for %v, and no datagram came for %v; want %v at most", tr.name, got.Stall, got.Gap, most)
	}
}

// rest lets time pass, and looks at the daemons.
func (s *soaking) rest(left time.Duration) {
	const between = 10 * time.Second
	for until := time.Now().Add(left); ; {
		for _, d := range []*daemon.Daemon{s.Server.Daemon, s.relays[0].Daemon, s.relays[1].Daemon, s.laptop.Daemon, s.factory.Daemon} {
			s.memory.add(sample{d.Name(), d.Process().PID(), time.Now(), d.Memory()})
		}
		left := time.Until(until)
		if left <= 0 {
			return
		}
		await.Passing(s.t, min(left, between))
	}
}

// report says what became of everything.
func (s *soaking) report() {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TROUBLE\tTIMES\tSTALL MEDIAN\tMOST\tLIMIT\tOVER")
	for _, tr := range s.troubles {
		if len(tr.stalls) == 0 {
			continue
		}
		sorted := slices.Sorted(slices.Values(tr.stalls))
		fmt.Fprintf(table, "%s\t%d\t%.3f s\t%.3f s\t%.1f s\t%d\n", tr.name, len(sorted), sorted[len(sorted)/2].Seconds(), sorted[len(sorted)-1].Seconds(), tr.stall.Seconds(), tr.over)
	}
	table.Flush()
	s.t.Logf("what %v of troubles did:\n%s", time.Since(s.begun).Round(time.Second), &text)
	if err := s.memory.judge(s.t, s.begun); err != nil {
		s.t.Error(err)
	}
}

// serverSilent is the server's machine saying nothing for a while.
func (w *world) serverSilent(t *testing.T, silence time.Duration) fault {
	host := w.Server.Host()
	return fault{
		stall: undisturbed, rounds: 1,
		strike: func() {
			host.SetRules(topo.DropAll)
			await.Passing(t, silence)
			host.SetRules()
		},
		mend: func() { w.waitKnown(t); w.waitReady() },
	}
}
