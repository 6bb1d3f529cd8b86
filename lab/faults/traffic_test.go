package faults

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/meter"
)

// traffic is what runs through a world while something breaks: a checked stream in both directions and numbered
// datagrams there and back, and the same datagrams past Netport, from laptop to a host of the internet, which tell
// what the machine that runs the test does to them.
type traffic struct {
	w      *world
	stop   context.CancelFunc
	stream chan error
	flow   chan datagrams
	beside chan datagrams
}

// datagrams is what became of numbered datagrams.
type datagrams struct {
	sent   int
	report meter.DatagramReport
	err    error
}

// Gaps between datagrams that are no interruption.
const maxGap = 200 * time.Millisecond

// startTraffic starts the traffic, over forwards that are up, and waits until it flows. What runs through the tunnel
// must be the only traffic to plc's echo port.
func (w *world) startTraffic() *traffic {
	w.t.Helper()
	ln := w.plc.Listen(echoPort)
	w.plc.EchoUDP(echoPort)
	stranger := w.lab.Public("beside")
	stranger.EchoUDP(echoPort)
	p := w.connect(entryPort, ln)
	flow := w.dial("udp", entryPort).(*net.UDPConn)
	wantEcho(w, flow)
	for _, conn := range []net.Conn{p.client, p.service, flow} {
		if err := conn.SetDeadline(time.Now().Add(serverOutage() + await.Patience)); err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(w.t.Context())
	tr := &traffic{w: w, stop: stop, stream: make(chan error, 1), flow: make(chan datagrams, 1), beside: make(chan datagrams, 1)}
	w.t.Cleanup(stop)
	go func() {
		there, back := meter.Stream{Rate: 20e6}.Exchange(ctx, p.client, p.service)
		tr.stream <- errors.Join(there.Check(), back.Check())
	}()
	beside := w.laptop.Host().Dial("udp", netip.AddrPortFrom(stranger.Addr(), echoPort)).(*net.UDPConn)
	go func() { tr.flow <- measure(ctx, flow) }()
	go func() { tr.beside <- measure(ctx, beside) }()
	return tr
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

// measure sends numbered datagrams, 100 a second, until ctx ends.
func measure(ctx context.Context, conn *net.UDPConn) (d datagrams) {
	m := meter.Datagrams{Count: 100_000, Interval: 10 * time.Millisecond, Key: []byte("lab"), Linger: time.Second}
	received := make(chan struct{})
	receiving, finished := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(received)
		var err error
		d.report, err = m.Receive(receiving, conn)
		d.err = errors.Join(err, d.report.Check())
	}()
	sent, _, err := m.Send(ctx, conn)
	finished()
	<-received
	d.sent, d.err = sent, errors.Join(d.err, err)
	return d
}

// end stops the traffic. Nothing of the stream may be lost, and no datagram; and none may have come later than the
// machine accounts for.
func (tr *traffic) end() {
	t := tr.w.t
	t.Helper()
	tr.stop()
	flow, beside := <-tr.flow, <-tr.beside
	if err := errors.Join(<-tr.stream, flow.err, beside.err); err != nil {
		t.Error(err)
	}
	t.Logf("datagrams: %d sent, longest gap %v; past Netport %v", flow.sent, flow.report.LongestGap, beside.report.LongestGap)
	if lost := flow.sent - flow.report.Received; lost > 0 {
		t.Errorf("%d of %d datagrams were lost", lost, flow.sent)
	}
	// Entry, relay and exit have to get their turns besides.
	if most := maxGap + 3*beside.report.LongestGap; flow.report.LongestGap > most {
		t.Errorf("a gap of %v between datagrams, want %v at most", flow.report.LongestGap, most)
	}
}
