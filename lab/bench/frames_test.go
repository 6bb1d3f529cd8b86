package main

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/netport/netport/lab/need"
)

// testCable is a cable with no devices.
func testCable() *cable {
	return &cable{
		near: cableEnd{device: &net.Interface{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
		far:  cableEnd{device: &net.Interface{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}},
	}
}

func TestGeneratorWritesEveryFieldThatRelaysChange(t *testing.T) {
	need.Root(t)
	traffic := traffic{
		flows: 300, source: netip.MustParseAddrPort("30.0.0.250:4000"), target: netip.MustParseAddrPort("20.0.1.2:20000"),
		sourceMask: ^uint32(0), targetPortMask: 63, payload: []byte("an even payload."),
	}
	g, err := testCable().newGenerator(traffic)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	spoilt := bytes.Clone(g.frame)
	for _, field := range [][2]int{{0, 12}, {22, 23}, {24, 34}, {34, 38}, {40, 42}} { // MACs, TTL, sum and addresses, ports, sum
		for i := field[0]; i < field[1]; i++ {
			spoilt[i] = 0xa5
		}
	}
	flows := make(map[netip.AddrPort]bool)
	for range 20 * traffic.flows {
		frame := make([]byte, len(spoilt))
		verdict, err := g.programs.Generate.Run(&ebpf.RunOptions{Data: spoilt, DataOut: frame})
		if err != nil {
			t.Fatal(err)
		}
		const xdpTX = 3
		if verdict != xdpTX {
			t.Fatalf("verdict %d, want %d", verdict, xdpTX)
		}
		flows[checkFrame(t, traffic, frame)] = true
	}
	if len(flows) < traffic.flows*9/10 {
		t.Errorf("%d frames are of %d flows, want about %d", 20*traffic.flows, len(flows), traffic.flows)
	}
}

// checkFrame returns the source of a frame that is as the traffic says.
func checkFrame(t *testing.T, want traffic, frame []byte) netip.AddrPort {
	t.Helper()
	addrPort := func(addr, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(frame[addr:])), binary.BigEndian.Uint16(frame[port:]))
	}
	source, target := addrPort(26, 34), addrPort(30, 36)
	n := int(number(source.Addr()) - number(want.source.Addr()))
	if n < 0 || n >= want.flows {
		t.Fatalf("source %v is of none of %d flows", source, want.flows)
	}
	if wantSource, wantTarget := want.flow(n); source != wantSource || target != wantTarget {
		t.Errorf("flow %d: %v -> %v, want %v -> %v", n, source, target, wantSource, wantTarget)
	}
	if mac := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}; !bytes.Equal(frame[:12], mac) || frame[22] != 64 {
		t.Errorf("flow %d: MACs %x and TTL %d, want %x and 64", n, frame[:12], frame[22], mac)
	}
	if !bytes.Equal(frame[42:], want.payload) {
		t.Errorf("flow %d: payload %q, want %q", n, frame[42:], want.payload)
	}
	if sum := onesSum(frame[14:34]); sum != 0xffff {
		t.Errorf("flow %d: the sum over the IP header is %#x", n, sum)
	}
	pseudo := append(bytes.Clone(frame[26:34]), 0, 17, frame[38], frame[39])
	if sum := onesSum(append(pseudo, frame[34:]...)); sum != 0xffff {
		t.Errorf("flow %d: the sum over the datagram is %#x", n, sum)
	}
	return source
}

// onesSum adds 16-bit words up in ones' complement, which makes 0xffff over what has a right checksum (RFC 1071).
func onesSum(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
		sum = sum&0xffff + sum>>16
	}
	return sum
}
