//go:build linux

package bpf

import (
	"fmt"
	"testing"
	"time"
)

// TestXDPFindsTheWayOnAHostThatDoesNotForward, between two interfaces and without
// the daemon, once the kernel knows the neighbours: in life the packets that the
// daemon sends see to that.
func TestXDPFindsTheWayOnAHostThatDoesNotForward(t *testing.T) {
	for _, mode := range []string{ModeXDP, ModeGeneric} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s v6=%v", mode, v6), func(t *testing.T) {
				w := newWorld(t)
				w.sysctl("net/ipv4/ip_forward", "0")
				w.sysctl("net/ipv6/conf/all/forwarding", "0")
				k := w.open(w.options(mode, ""))
				p := pairOf(UDP, v6, 0)
				if err := k.Add(p, Terms{Lifetime: time.Hour}); err != nil {
					t.Fatal(err)
				}
				w.meet(v6)
				ends := w.ends(p)
				if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
					t.Errorf("%d of 100 datagrams were lost; drops %v", lost, k.Drops())
				}
			})
		}
	}
}

// TestTCLeavesTheLoopbackInterfaceAlone: tc needs nothing of the host.
func TestTCLeavesTheLoopbackInterfaceAlone(t *testing.T) {
	w := newWorld(t)
	w.sysctl("net/ipv4/ip_forward", "0")
	k := w.open(w.options(ModeTC, ""))
	if askers, err := k.askers(); err != nil || askers != [2]uint32{} {
		t.Errorf("askers %v, %v; want none", askers, err)
	}
}
