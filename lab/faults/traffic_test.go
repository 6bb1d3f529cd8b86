package faults

import (
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/lab/traffic"
)

// running is traffic through a world while something breaks.
type running struct {
	*traffic.Traffic
	w *world
}

// Gaps between datagrams that are no interruption.
const maxGap = 200 * time.Millisecond

// startTraffic starts the traffic, over forwards that are up, and waits until it flows. What runs through the tunnel
// must be the only traffic to plc's echo port.
func (w *world) startTraffic() running {
	w.t.Helper()
	ln := w.plc.Listen(echoPort)
	w.plc.EchoUDP(echoPort)
	stranger := w.lab.Public("beside")
	stranger.EchoUDP(echoPort)
	p := w.connect(entryPort, ln)
	flow := w.dial("udp", entryPort).(*net.UDPConn)
	wantEcho(w, flow)
	beside := w.laptop.Host().Dial("udp", netip.AddrPortFrom(stranger.Addr(), echoPort)).(*net.UDPConn)
	return running{traffic.Start(w.t, traffic.Load{
		Pairs: []traffic.Pair{{Client: p.client, Service: p.service}}, Flow: flow, Beside: beside,
	}), w}
}

// wantEcho sends one datagram and wants it back: it opens the flow.
func wantEcho(w *world, conn net.Conn) {
	w.t.Helper()
	b := make([]byte, 10)
	if _, err := conn.Write([]byte("?")); err != nil {
		w.t.Fatal(err)
	}
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "?" {
		w.t.Fatalf("datagram: got %q, %v", b[:n], err)
	}
}

// end stops the traffic. Nothing of the stream may be lost, and no datagram; and none may have come later than the
// machine accounts for.
func (r running) end() {
	t := r.w.t
	t.Helper()
	got := r.End()
	t.Log(got)
	if got.Err != nil {
		t.Error(got.Err)
	}
	if lost := got.Sent - got.Arrived; lost > 0 {
		t.Errorf("%d of %d datagrams were lost", lost, got.Sent)
	}
	// Entry, relay and exit have to get their turns besides.
	if most := maxGap + 3*got.Machine; got.Gap > most {
		t.Errorf("a gap of %v between datagrams, want %v at most", got.Gap, most)
	}
}
