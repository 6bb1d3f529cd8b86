//go:build linux

package bpf

import (
	"os"
	"strings"
)

// XDP has to know the next hop when it sends a packet by another interface than it
// came by, and the kernel answers that question for packets that it may forward: on
// a host that does not forward, for none. A relay's packets leave from its own
// addresses, as if it had made them; so the program asks in the name of the loopback
// interface, as for these, and that one is allowed to forward. Nothing arrives
// there from outside, so the host forwards no more than before. tc needs no
// asker: it leaves the next hop to the kernel.

const loopbackIndex = 1 // of every network namespace

// loopbackForwarding are the settings, IPv4's and IPv6's.
var loopbackForwarding = [2]string{
	"/proc/sys/net/ipv4/conf/lo/forwarding",
	"/proc/sys/net/ipv6/conf/lo/forwarding",
}

// askers returns the interfaces in whose name the program asks for routes, IPv4's
// and IPv6's; 0 is that which a packet came by. It changes nothing if no interface
// begins with XDP.
func (k *Kernel) askers() (askers [2]uint32, err error) {
	devices, err := k.network.devices()
	if err != nil {
		return askers, err
	}
	for _, d := range devices {
		if !d.ethernet || !d.up || k.modesFor(d)[0] == ModeTC {
			continue
		}
		for i, file := range loopbackForwarding {
			if allow(file) {
				askers[i] = loopbackIndex
			}
		}
		return askers, nil
	}
	return askers, nil
}

// allow turns a setting on and reports whether it is. Where that is not possible
// (IPv6 is off, /proc is read-only), the daemon sends what XDP cannot.
func allow(file string) bool {
	old, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	return strings.TrimSpace(string(old)) != "0" || os.WriteFile(file, []byte("1"), 0) == nil
}
