//go:build linux

package bpf

import "testing"

func TestPacketPortsAreSessionPortsOrNone(t *testing.T) {
	for _, c := range []struct {
		first, last uint16
		want        bool
	}{
		{0, 0, true}, // UDP alone is forwarded in the kernel
		{28672, 32767, true},
		{20000, 32767, true},
		{19992, 28671, false},
		{28672, 32775, false},
		{28680, 28672, false},
		{0, 32767, false},
		{28672, 0, false},
	} {
		o := Options{Mode: ModeAuto, First: 20000, Last: 32767, PacketFirst: c.first, PacketLast: c.last, Capacity: 1}
		if err := o.check(); (err == nil) != c.want {
			t.Errorf("packet ports %d-%d: %v, want them taken: %t", c.first, c.last, err, c.want)
		}
	}
}
