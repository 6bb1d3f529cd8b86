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
	for _, k := range v4Kinds[:6] {
		if k.rule = []topo.Rule{topo.BlockUDP}; *full || k.name != "full cone" && k.name != "carrier-grade" {
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
// rounds are only told with -full, and else the first four; then pairs that were much too late meet again.
func (w *world) tell(t *testing.T, shifts int, theory func(a, b kind) bool) {
	runs, n := 1, len(w.a)
	var chosen []int
	for shift := range shifts {
		if *full || shift < 4 {
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
	if !*full {
		w.again(t, met)
	}
	met = slices.DeleteFunc(met, func(all []meeting) bool { return len(all) == 0 })
	t.Log(table(met))
	judge(t, met)
}

// again has the pairs that were much too late meet up to twice more, from portals and NATs that know nothing: the machine
// is busy.
func (w *world) again(t *testing.T, met [][]meeting) {
	for place, all := range met {
		for len(all) > 0 && len(all) < 3 && all[len(all)-1].late(bad) {
			w.forget(t)
			m := meeting{theory: all[0].theory}
			t.Run(fmt.Sprintf("meeting %d of %s and %s", len(all)+1, all[0].a.kind.name, all[0].b.kind.name), func(t *testing.T) {
				w.meet(t, &m, place/len(w.b), place%len(w.b))
			})
			all = append(all, m)
		}
		met[place] = all
	}
}

// bound is within how many round trips after the relay's path stands a direct way is to be found, and within how many both
// portals are to have a carrier there.
type bound struct{ found, carries time.Duration }

// soon is three (package direct), and the busy machine's own part; over TCP one more. bad is less than it takes when a
// packet that had to come through did not, and TCP repeats it after a second.
var (
	soon    = bound{3 * roundTrip, 4 * roundTrip}
	soonTCP = bound{0, 5 * roundTrip}
	bad     = bound{6 * roundTrip, 8 * roundTrip}
)

// late says whether a pair that can be direct was so only after that.
func (m meeting) late(b bound) bool {
	return m.theory && (m.took == 0 || m.found > b.found || m.took > b.carries)
}

func (m meeting) slow() bool {
	if m.found == 0 { // UDP is blocked
		return m.late(soonTCP)
	}
	return m.late(soon)
}

// judge wants that of no pair, or of one in 30 meetings with -full.
func judge(t *testing.T, met [][]meeting) {
	t.Helper()
	slow, in := 0, 0
	for _, all := range met {
		slowHere, badHere := 0, 0
		for _, m := range all {
			if m.slow() {
				slowHere++
			}
			if m.late(bad) {
				badHere++
			}
		}
		slow, in = slow+slowHere, in+len(all)
		if n := len(all); n == 30 && slowHere > 1 || badHere == n {
			t.Errorf("%s and %s: of %d meetings %d had no direct path soon enough, %d by far", all[0].a.kind.name, all[0].b.kind.name, n, slowHere, badHere)
		}
	}
	// Portals that have just begun look for more than each other, and the machine is busy.
	if slow > in/5 {
		t.Errorf("of %d meetings %d had no direct path soon enough", in, slow)
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
