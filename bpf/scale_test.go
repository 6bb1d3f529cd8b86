//go:build linux

package bpf

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// S5 of the project's goals: both directions of an IPv6 pair and their counters
// take at most 400 bytes of the kernel's memory.
func TestMillionPairsTakeFourHundredBytesEach(t *testing.T) {
	const capacity, most = 1_000_000, 400
	w := newWorld(t)
	o := w.options(ModeTC, "")
	o.Capacity = capacity
	k := w.open(o)
	if err := k.Add(pairOf(UDP, true, 0), Terms{}); err != nil {
		t.Fatal(err)
	}
	flows, slots := memoryOf(t, k.maps.Flows), memoryOf(t, k.maps.Slots)
	each := float64(flows+slots) / capacity
	t.Logf("flows %d B, slots %d B: %.1f B a pair; besides, at this capacity: admitted %d B, leases %d B, events %d B",
		flows, slots, each, memoryOf(t, k.maps.Admitted), memoryOf(t, k.maps.Leases), memoryOf(t, k.maps.Events))
	if each > most {
		t.Errorf("%.1f B a pair are more than %d", each, most)
	}
}

// The goal is 5,000 pairs a second, set up and torn down.
func TestPairsComeAndGo(t *testing.T) {
	const batch = 1000
	capacity := 20_000
	if *full {
		capacity = 1_000_000
	}
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	o.Capacity = capacity
	k := w.open(o)
	batches := make([][]Entry, 0, capacity/batch)
	for n := range capacity {
		if n%batch == 0 {
			batches = append(batches, make([]Entry, 0, batch))
		}
		p := pairOf(UDP, true, 0)
		port := uint16(1 + n%65_000)
		p.A.Remote, p.B.Remote = netip.AddrPortFrom(p.A.Remote.Addr(), port), netip.AddrPortFrom(p.B.Remote.Addr(), port)
		p.A.Port, p.B.Port = uint16(20_000+n/65_000), uint16(20_000+n/65_000)
		last := &batches[len(batches)-1]
		*last = append(*last, Entry{p, Terms{Lifetime: time.Hour}})
	}
	rate := func(what string, do func()) {
		begin := time.Now()
		do()
		t.Logf("%s %d pairs: %.0f a second", what, capacity, float64(capacity)/time.Since(begin).Seconds())
	}
	rate("add", func() {
		for _, b := range batches {
			if err := k.AddBatch(b); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err := k.Add(pairOf(UDP, false, 0), Terms{}); !errors.Is(err, ErrFull) {
		t.Errorf("one pair too many: %v", err)
	}
	k.Close()
	rate("adopt", func() { k = w.open(o) })
	rate("read", func() {
		n := 0
		for range k.Pairs() {
			n++
		}
		if n != capacity {
			t.Errorf("%d pairs were adopted", n)
		}
	})
	rate("find none closed of", func() {
		if n := len(k.Closed()); n != 0 {
			t.Errorf("%d pairs are closed", n)
		}
	})
	rate("route", func() {
		if err := k.reroute(); err != nil {
			t.Error(err)
		}
	})
	rate("remove", func() {
		for _, b := range batches {
			pairs := make([]Pair, len(b))
			for i, e := range b {
				pairs[i] = e.Pair
			}
			if _, err := k.RemoveBatch(pairs); err != nil {
				t.Fatal(err)
			}
		}
	})
	for range k.Pairs() {
		t.Fatal("something is left")
	}
}

var full = flag.Bool("full", false, "fill a table with a million pairs")

// memoryOf returns what a map takes of the kernel's memory, in bytes.
func memoryOf(t *testing.T, m *ebpf.Map) (n int) {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if _, err := fmt.Sscanf(line, "memlock: %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("the kernel does not say how much memory a map takes:\n%s", info)
	return 0
}
