package faults

import (
	"fmt"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// T8 and G1: a stranger's datagrams to the relay are met with silence, at ports that are in use, whatever they hold.
//
// What a stranger can tell: at a port that nobody uses, the kernel of the relay's machine answers for it (ICMP port
// unreachable), unless a firewall of that machine forbids it. At a session's port and at the shared port it hears
// nothing. So a scan finds which ports are in use, and nothing else.
func TestRelayIsSilentToScanners(t *testing.T) {
	const shared = 3478
	w := newNetwork(t, daemon.Set("shared_udp_port", shared))
	_, eve, sessions := w.meet()
	used := sessions[0].Relay.UDP
	stranger := w.lab.Public("stranger")
	arrived := stranger.CountArrivals()
	socket := stranger.ListenUDP(0)
	for _, port := range []uint16{used, shared} {
		for size := range 1500 {
			payload := make([]byte, size)
			if size >= 8 {
				copy(payload[4:], "\x21\x12\xa4\x42") // STUN's cookie
			}
			if size%2 == 0 {
				copy(payload, "GET / HTTP/1.1\r\n")
			}
			if _, err := socket.WriteToUDPAddrPort(payload, w.relayAddr(port)); err != nil {
				t.Fatal(err)
			}
		}
	}
	bind(t, eve, sessions[1], 1) // all before has been read
	if got := arrived(); got.Packets > 0 {
		t.Errorf("the stranger got %d packets of %d bytes", got.Packets, got.Bytes)
	}
	// The kernel's own answer at a port that is not in use shows that the count would have seen one.
	if _, err := socket.WriteToUDPAddrPort([]byte("?"), w.relayAddr(used+1)); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "answered with ICMP", func() error {
		if arrived().Packets == 0 {
			return fmt.Errorf("nothing came")
		}
		return nil
	})
}
