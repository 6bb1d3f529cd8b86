package matrix

import (
	"fmt"
	"slices"
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

func TestIPv4(t *testing.T) {
	var kinds []kind
	for _, k := range v4Kinds {
		if *full || k.name != "full cone" && k.name != "carrier-grade symmetric" { // which the others are much like
			kinds = append(kinds, k)
		}
	}
	everyPair(t, kinds, kind.meets)
}
func TestIPv6(t *testing.T) { everyPair(t, v6Kinds, kind.meets) }

// UDP is blocked at every site.
func TestTCP(t *testing.T) {
	var kinds []kind
	for i, k := range v4Kinds[:6] {
		if k.rule = []topo.Rule{topo.BlockUDP}; *full || i%3 == 0 || k.name == "symmetric" {
			kinds = append(kinds, k)
		}
	}
	everyPair(t, kinds, kind.meets)
}

// hairpin is a provider's NAT that lets those behind it reach each other.
var hairpin = topo.NAT{Mapping: topo.EndpointIndependent, Filtering: topo.AddressAndPortDependent, Hairpin: true}

// Both portals are behind one NAT.
func TestOneNAT(t *testing.T) {
	w := newWorld(t)
	theory := make(map[string]bool)
	for _, k := range []struct {
		name   string
		nats   []topo.NAT
		direct bool
	}{
		{"one LAN", []topo.NAT{topo.Symmetric}, true},
		{"one carrier-grade NAT", []topo.NAT{topo.FullCone, topo.FullCone}, false},
		{"one that hairpins", []topo.NAT{hairpin, topo.PortRestricted}, behind(topo.PortRestricted).meets(behind(topo.PortRestricted))},
		{"one that hairpins, symmetric homes", []topo.NAT{hairpin, topo.Symmetric}, behind(topo.Symmetric).meets(behind(topo.Symmetric))},
	} {
		theory[k.name] = k.direct
		w.shared(kind{name: k.name, v4: true, nats: k.nats})
	}
	w.allow(t)
	w.tell(t, 1, func(a, _ kind) bool { return theory[a.name] })
}

// everyPair has portals of each kind meet those of each.
func everyPair(t *testing.T, kinds []kind, theory func(a, b kind) bool) {
	w := newWorld(t)
	for i, k := range kinds {
		w.a = append(w.a, w.site(fmt.Sprintf("a-%d", i), k))
		w.b = append(w.b, w.site(fmt.Sprintf("b-%d", i), k))
	}
	w.allow(t)
	w.tell(t, len(kinds), theory)
}

// tell has all pairs meet, in so many rounds, in each of which a portal has one peer, and logs what became of them. All
// rounds are only told with -full, and else the first two and another.
func (w *world) tell(t *testing.T, shifts int, theory func(a, b kind) bool) {
	runs, n := 1, len(w.a)
	var chosen []int
	for shift := range shifts {
		if *full || shift < 2 || shift == 3 {
			chosen = append(chosen, shift)
		}
	}
	if *full {
		runs = 30
	}
	met := make([][]meeting, n*n)
	for run := range runs {
		if run > 0 {
			w.forget(t)
		}
		for _, shift := range chosen {
			t.Run(fmt.Sprintf("run %d round %d", run+1, shift+1), func(t *testing.T) {
				for i := range n {
					j := (i + shift) % n
					place := &met[i*n+j]
					*place = append(*place, meeting{theory: theory(w.a[i].kind, w.b[j].kind)})
					m := &(*place)[run]
					t.Run(w.a[i].kind.name+" and "+w.b[j].kind.name, func(t *testing.T) {
						t.Parallel()
						w.meet(t, m, i, j)
					})
				}
			})
		}
	}
	met = slices.DeleteFunc(met, func(all []meeting) bool { return len(all) == 0 })
	t.Log(table(met))
	judge(t, met)
}

// quick is within how many round trips of the relay's path a direct way is found, but for one of 30 meetings; and carries
// within how many both portals have a carrier there: three (package direct), and the busy machine's own part; one more over
// TCP.
const (
	quick   = 3
	carries = 4
)

// slow says whether a pair that can be direct was not soon enough.
func (m meeting) slow() bool {
	most := carries
	if m.found == 0 { // UDP is blocked
		most++
	}
	return m.theory && (m.took == 0 || m.found > quick*roundTrip || m.took > time.Duration(most)*roundTrip)
}

// judge wants that of no pair, or of one in 30 meetings with -full.
func judge(t *testing.T, met [][]meeting) {
	t.Helper()
	late, in := 0, 0
	for _, all := range met {
		lateHere := 0
		for _, m := range all {
			if m.slow() {
				lateHere++
			}
		}
		if late, in = late+lateHere, in+len(all); len(all) == 30 && lateHere > 1 {
			t.Errorf("%s and %s: of %d meetings %d had no direct path soon enough", all[0].a.kind.name, all[0].b.kind.name, len(all), lateHere)
		}
	}
	// Portals that have just begun look for more than each other, and the machine is busy.
	if late > in/5 {
		t.Errorf("of %d meetings %d had no direct path soon enough", in, late)
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
		if worst.found > 0 {
			found = rounds(worst.found)
		}
		if worst.took > 0 {
			took = rounds(worst.took)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%v\t%v\n", worst.a.kind.name, worst.b.kind.name, theory, worst.path, found, took,
			worst.outcome.Stall.Round(time.Millisecond), worst.outcome.Gap.Round(time.Millisecond))
	}
	w.Flush()
	return text.String()
}
