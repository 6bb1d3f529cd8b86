//go:build linux

package bpf

import (
	"fmt"
	"os"
	"strings"
	"testing"

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
