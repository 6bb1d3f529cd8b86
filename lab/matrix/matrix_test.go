package matrix

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/netport/netport/lab/topo"
)

// The NATs that are met.
var v4Kinds = []kind{
	{name: "none", v4: true},
	{name: "full cone", v4: true, nats: []topo.NAT{topo.FullCone}},
	{name: "address-restricted", v4: true, nats: []topo.NAT{topo.RestrictedCone}},
	{name: "port-restricted", v4: true, nats: []topo.NAT{topo.PortRestricted}},
	{name: "symmetric", v4: true, nats: []topo.NAT{topo.Symmetric}},
	{name: "carrier-grade", v4: true, nats: []topo.NAT{topo.FullCone, topo.PortRestricted}},
	{name: "carrier-grade symmetric", v4: true, nats: []topo.NAT{topo.Symmetric, topo.PortRestricted}},
}

// Sites with IPv6, and one without.
var v6Kinds = []kind{
	{name: "IPv6", v6: true},
	{name: "IPv6 behind a firewall", v6: true, wall: true},
	{name: "IPv6, and IPv4 behind a symmetric NAT", v4: true, v6: true, nats: []topo.NAT{topo.Symmetric}},
	{name: "IPv4 behind a port-restricted NAT", v4: true, nats: []topo.NAT{topo.PortRestricted}},
}

func TestIPv4(t *testing.T) { everyPair(t, v4Kinds) }
func TestIPv6(t *testing.T) { everyPair(t, v6Kinds) }

// UDP is blocked at every site.
func TestTCP(t *testing.T) {
	var kinds []kind
	for _, k := range v4Kinds[:6] {
		k.rule = []topo.Rule{topo.BlockUDP}
		kinds = append(kinds, k)
	}
	everyPair(t, kinds)
}

// everyPair has portals of each kind meet those of each.
func everyPair(t *testing.T, kinds []kind) {
	w := newWorld(t)
	for i, k := range kinds {
		w.a = append(w.a, w.site(fmt.Sprintf("a-%d", i), k))
		w.b = append(w.b, w.site(fmt.Sprintf("b-%d", i), k))
	}
	w.allow(t)
	w.tell(t, func(a, b *site) bool { return a.kind.meets(b.kind) })
}

// tell has all pairs meet, in rounds in which each portal has one peer, and logs what became of them.
func (w *world) tell(t *testing.T, theory func(a, b *site) bool) {
	runs := 1
	if *full {
		runs = 30
	}
	n := len(w.a)
	met := make([][]meeting, n*n)
	for run := range runs {
		if run > 0 {
			w.forget(t)
		}
		for shift := range n {
			t.Run(fmt.Sprintf("run %d round %d", run+1, shift+1), func(t *testing.T) {
				for i := range n {
					j := (i + shift) % n
					place := &met[i*n+j]
					*place = append(*place, meeting{theory: theory(w.a[i], w.b[j])})
					m := &(*place)[run]
					t.Run(w.a[i].kind.name+" and "+w.b[j].kind.name, func(t *testing.T) {
						t.Parallel()
						w.meet(t, m, i, j)
					})
				}
			})
		}
	}
	t.Log(table(met))
	for _, all := range met {
		judge(t, all)
	}
}

// quick is within how many round trips of the relay's path a direct one stands, but for one of 30.
const quick = 3

// judge wants all but one of 30 meetings to have been direct in time, if they can be.
func judge(t *testing.T, all []meeting) {
	t.Helper()
	late := 0
	for _, m := range all {
		if m.took == 0 || m.took > quick*roundTrip {
			late++
		}
	}
	if m := all[0]; m.theory && late > 1 {
		t.Errorf("%s and %s: of %d meetings %d were not direct within %d round trips", m.a.kind.name, m.b.kind.name, len(all), late, quick)
	}
}

// table has a line for each pair: the worst of its meetings.
func table(met [][]meeting) string {
	var text strings.Builder
	fmt.Fprintf(&text, "round trips of %v after the relay's path stood until a direct way was found, and until it carried; the longest stall of a stream, and gap between datagrams\n", roundTrip)
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "a\tb\ttheory\tpath\tfound\tcarried\tstall\tgap")
	for _, all := range met {
		worst := all[0]
		for _, m := range all[1:] {
			worst.found, worst.took = max(worst.found, m.found), max(worst.took, m.took)
			worst.outcome.Stall, worst.outcome.Gap = max(worst.outcome.Stall, m.outcome.Stall), max(worst.outcome.Gap, m.outcome.Gap)
			if strings.HasPrefix(m.path, "direct") != m.theory {
				worst.path = m.path
			}
		}
		theory, found, took := "relay", "-", "-"
		if worst.theory {
			theory = "direct"
		}
		if worst.took > 0 {
			found, took = rounds(worst.found), rounds(worst.took)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%v\t%v\n", worst.a.kind.name, worst.b.kind.name, theory, worst.path, found, took,
			worst.outcome.Stall.Round(time.Millisecond), worst.outcome.Gap.Round(time.Millisecond))
	}
	w.Flush()
	return text.String()
}
