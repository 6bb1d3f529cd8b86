//go:build linux

package bpf

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pairOf is a pair of both hosts, told apart by n.
func pairOf(p Protocol, v6 bool, n int) Pair {
	leg := func(host int) Leg {
		return Leg{
			Remote: netip.AddrPortFrom(hostAddr(host, v6), uint16(1024+n)),
			Port:   uint16(20000 + 2*n + host),
			Local:  relayAddr(host, v6),
		}
	}
	return Pair{Protocol: p, A: leg(0), B: leg(1)}
}

// table opens a Kernel whose packets nobody sends: its table is what matters.
func openTable(t *testing.T, capacity int) *Kernel {
	w := newWorld(t)
	o := w.options(ModeTC, "")
	o.Capacity = capacity
	return w.open(o)
}

// pairsOf returns what a table holds.
func pairsOf(k *Kernel) map[Pair]Terms {
	list := make(map[Pair]Terms)
	for p, terms := range k.Pairs() {
		list[p] = terms
	}
	return list
}

// count makes the program's counters of a leg's direction what they would be
// after some packets.
func (k *Kernel) count(t *testing.T, p Protocol, from Leg, packets, bytes uint64) {
	t.Helper()
	k.set(t, p, from, func(d *relayDirection) {
		d.Packets += packets
		d.Bytes += bytes
	})
}

// set changes a direction in place of the program.
func (k *Kernel) set(t *testing.T, p Protocol, from Leg, change func(*relayDirection)) {
	t.Helper()
	f, live, err := k.flowLocked(keyOf(p, from))
	if err != nil || !live {
		t.Fatalf("no flow from %v: %v", from.Remote, err)
	}
	change(k.table.direction(f))
}

func TestPairsAreWhatWasAdded(t *testing.T) {
	k := openTable(t, 64)
	want := make(map[Pair]Terms)
	for i, p := range []Pair{
		pairOf(UDP, false, 0), pairOf(UDP, true, 0), pairOf(TCP, false, 0), pairOf(TCP, true, 1),
	} {
		want[p] = Terms{Lifetime: time.Duration(i) * time.Minute, Packets: 1000 << i, Bytes: 1_024_000 << i}
		if err := k.Add(p, want[p]); err != nil {
			t.Fatal(err)
		}
	}
	less := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	ports := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, pairsOf(k), less, ports); diff != "" {
		t.Errorf("pairs (-want +got):\n%s", diff)
	}
	for p := range want {
		if _, err := k.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if list := pairsOf(k); len(list) != 0 {
		t.Errorf("after all were removed there are %v", list)
	}
}

func TestAddRefusesWhatTheProgramCannotCarry(t *testing.T) {
	k := openTable(t, 64)
	good := pairOf(UDP, false, 0)
	for name, spoil := range map[string]func(*Pair){
		"another protocol":        func(p *Pair) { p.Protocol = 132 },
		"no remote":               func(p *Pair) { p.A.Remote = netip.AddrPort{} },
		"a mapped remote":         func(p *Pair) { p.A.Remote = netip.MustParseAddrPort("[::ffff:10.0.0.2]:1") },
		"a zone":                  func(p *Pair) { p.A.Remote = netip.MustParseAddrPort("[fe80::1%a]:1") },
		"port 0":                  func(p *Pair) { p.B.Remote = netip.AddrPortFrom(p.B.Remote.Addr(), 0) },
		"no session port":         func(p *Pair) { p.B.Port = 19999 },
		"an unknown own address":  func(p *Pair) { p.A.Local = netip.Addr{} },
		"a stranger's as its own": func(p *Pair) { p.A.Local = netip.MustParseAddr("192.0.2.1") },
		"one leg twice":           func(p *Pair) { p.B = p.A },
	} {
		p := good
		spoil(&p)
		if err := k.Add(p, Terms{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	mixed := good
	mixed.B = pairOf(UDP, true, 0).B
	if err := k.Add(mixed, Terms{}); !errors.Is(err, ErrVersions) {
		t.Errorf("legs of two versions: %v", err)
	}
	if list := pairsOf(k); len(list) != 0 {
		t.Errorf("the table has %v", list)
	}
}

func TestFullTableRefusesAndStaysAsItWas(t *testing.T) {
	const capacity = 100 // no multiple of a word
	k := openTable(t, capacity)
	var list []Entry
	for n := range capacity {
		list = append(list, Entry{Pair: pairOf(UDP, false, n)})
	}
	if err := k.AddBatch(list[:capacity-1]); err != nil {
		t.Fatal(err)
	}
	// A batch of which only the first fits leaves nothing.
	over := []Entry{list[capacity-1], {Pair: pairOf(UDP, false, capacity)}}
	if err := k.AddBatch(over); !errors.Is(err, ErrFull) {
		t.Fatalf("one pair too many: %v", err)
	}
	if n := len(pairsOf(k)); n != capacity-1 {
		t.Errorf("%d pairs are in the table, want %d", n, capacity-1)
	}
	if err := k.AddBatch(list[capacity-1:]); err != nil {
		t.Fatalf("the last pair: %v", err)
	}
	if err := k.Add(over[1].Pair, Terms{}); !errors.Is(err, ErrFull) {
		t.Fatalf("a pair more than there is room for: %v", err)
	}
	k.Remove(list[3].Pair)
	if err := k.Add(over[1].Pair, Terms{}); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

func TestAddingAgainSetsTheTermsAndKeepsTheCounters(t *testing.T) {
	k := openTable(t, 1)
	p := pairOf(UDP, false, 0)
	if err := k.Add(p, Terms{Lifetime: time.Minute, Packets: 10}); err != nil {
		t.Fatal(err)
	}
	k.count(t, UDP, p.A, 3, 300)
	for _, again := range []Pair{p, {p.Protocol, p.B, p.A}} {
		terms := Terms{Lifetime: time.Hour, Bytes: 1_024_000}
		if err := k.Add(again, terms); err != nil {
			t.Fatal(err)
		}
		if got, want := pairsOf(k), (map[Pair]Terms{p: terms}); len(got) != 1 || got[p] != want[p] {
			t.Errorf("the table has %v, want %v", got, want)
		}
	}
	got, err := k.Counters(p)
	if want := (Counters{FromA: Traffic{3, 300}}); got != want || err != nil {
		t.Errorf("counters %v, %v; want %v", got, err, want)
	}
}

func TestMovedLegKeepsTheOtherDirection(t *testing.T) {
	k := openTable(t, 2)
	old := pairOf(UDP, false, 0)
	moved := old
	moved.A.Remote = netip.AddrPortFrom(old.A.Remote.Addr(), 9)
	if err := k.Add(old, Terms{}); err != nil {
		t.Fatal(err)
	}
	k.count(t, UDP, old.A, 1, 10)
	k.count(t, UDP, old.B, 2, 20)
	if err := k.Add(moved, Terms{}); err != nil {
		t.Fatal(err)
	}
	k.count(t, UDP, old.A, 4, 40) // still on its way from the old address
	k.count(t, UDP, moved.A, 8, 80)
	k.count(t, UDP, moved.B, 16, 160)
	want := Counters{FromA: Traffic{8, 80}, FromB: Traffic{18, 180}}
	if got, err := k.Counters(moved); got != want || err != nil {
		t.Errorf("the moved pair has %v, %v; want %v", got, err, want)
	}
	if got, err := k.Remove(old); got != (Counters{FromA: Traffic{5, 50}}) || err != nil {
		t.Errorf("removing the old pair returns %v, %v", got, err)
	}
	if got, err := k.Remove(old); got != (Counters{}) || err != nil {
		t.Errorf("removing it again returns %v, %v", got, err)
	}
	if got, err := k.Remove(moved); got != want || err != nil {
		t.Errorf("removing the moved pair returns %v, %v; want %v", got, err, want)
	}
	// Both slots are free again, and may be used by other pairs.
	for n := range 2 {
		if err := k.Add(pairOf(UDP, false, n), Terms{}); err != nil {
			t.Error(err)
		}
	}
}

func TestPairWhoseBothLegsWereTakenIsGone(t *testing.T) {
	k := openTable(t, 3)
	first, second, third := pairOf(UDP, false, 0), pairOf(UDP, false, 1), pairOf(UDP, false, 2)
	second.A, third.B = first.A, first.B
	for _, p := range []Pair{first, second, third} {
		if err := k.Add(p, Terms{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := pairsOf(k); len(got) != 2 {
		t.Errorf("the table has %v", got)
	}
	if err := k.Add(pairOf(UDP, false, 3), Terms{}); err != nil {
		t.Errorf("the slot of a pair that is gone is not free: %v", err)
	}
}

func TestBatches(t *testing.T) {
	k := openTable(t, 5000)
	var list []Entry
	var pairs []Pair
	for n := range 5000 {
		list = append(list, Entry{Pair: pairOf(TCP, n%2 == 0, n)})
		pairs = append(pairs, list[n].Pair)
	}
	begin := time.Now()
	if err := k.AddBatch(list); err != nil {
		t.Fatal(err)
	}
	added := time.Since(begin)
	k.count(t, TCP, pairs[7].B, 1, 2)
	begin = time.Now()
	counters, err := k.RemoveBatch(pairs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("5,000 pairs were added in %v and removed in %v", added, time.Since(begin))
	if at := slices.Index(counters, Counters{FromB: Traffic{1, 2}}); at != 7 {
		t.Errorf("the counters of pair 7 are at %d", at)
	}
	if err := k.AddBatch([]Entry{list[0], list[0]}); err == nil {
		t.Error("a pair can be in a batch twice")
	}
	if got := pairsOf(k); len(got) != 0 {
		t.Errorf("the table has %d pairs", len(got))
	}
}

func TestRatesAreNeverExceeded(t *testing.T) {
	for _, want := range []uint64{0, 1, 3, 1000, 3_000_000, 999_999_999} {
		d := &relayDirection{}
		d.setTerms(Terms{Packets: want, Bytes: want * 1000})
		if got := d.terms(); got.Packets > want || got.Packets < want/2 || got.Bytes > max(want*1000, 1024*256) {
			t.Errorf("%d a second became %d and %d bytes", want, got.Packets, got.Bytes)
		}
	}
}
