package link_test

import (
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// The dice's seed is in the log of a failed test. These tests send so much, and allow so much, that a good link fails
// one of them less than once in a million runs.

// near --- emulated link --- inet --- far
func newLink(t *testing.T, up, down link.Shape) (near, far *topo.Host) {
	t.Helper()
	l := topo.New(t, topo.NoCapture())
	return l.Public("near", topo.UplinkShapes(up, down)), l.Public("far")
}

// measure sends numbered datagrams from near to far.
func measure(t *testing.T, near, far *topo.Host, d meter.Datagrams) meter.DatagramReport {
	t.Helper()
	sink := far.ListenUDP(0)
	if err := sink.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(far.Addr(), sink.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	report, err := d.Measure(t.Context(), near.Dial("udp", to), sink)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestSharesOnTheWire(t *testing.T) {
	const count, share = 10000, 0.1
	for _, tt := range []struct {
		name  string
		shape link.Shape
		got   func(meter.DatagramReport) int
	}{
		// What a busy machine loses before the link has it is counted by the link (Missed).
		{"nothing", link.Shape{}, func(r meter.DatagramReport) int { return r.Lost + r.Duplicated + r.Reordered + r.Forged }},
		{"loss", link.Shape{Loss: share}, func(r meter.DatagramReport) int { return r.Lost }},
		{"duplicate", link.Shape{Duplicate: share}, func(r meter.DatagramReport) int { return r.Duplicated }},
		{"reorder", link.Shape{Reorder: share}, func(r meter.DatagramReport) int { return r.Reordered }},
		// The receiver's UDP checksum catches every flipped bit, so that the datagram is lost.
		{"corrupt", link.Shape{Corrupt: share}, func(r meter.DatagramReport) int { return r.Lost }},
		{"bursts", link.Shape{Burst: link.GilbertElliott{ToBad: share / 5, ToGood: (1 - share) / 5, LossBad: 1}}, func(r meter.DatagramReport) int { return r.Lost }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := newLink(t, link.Shape{}, link.Shape{})
			roundTrips(t, near, far, 1) // a question for a neighbour's address that is lost is repeated a second later
			near.Reshape(tt.shape, link.Shape{})
			report := measure(t, near, far, meter.Datagrams{Count: count, Interval: 100 * time.Microsecond, Linger: 500 * time.Millisecond})
			up, down := near.LinkCounters()
			report.Lost -= int(up.Missed)
			taken := float64(count - up.Missed)
			want, allowed := share*taken, 5*math.Sqrt(share*(1-share)*taken)
			switch tt.name {
			case "nothing":
				want, allowed = 0, 0
			case "bursts":
				allowed *= 4 // bursts spread wider than single losses
			}
			if got := float64(tt.got(report)); math.Abs(got-want) > allowed {
				t.Errorf("%v; want %.0f +- %.0f\nup %v\ndown %v", report, want, allowed, up, down)
			}
			if report.Forged > 0 {
				t.Errorf("flipped bits reached the receiver: %v", report)
			}
		})
	}
}

// roundTrips returns the times of one-byte TCP round trips, sorted.
func roundTrips(t *testing.T, near, far *topo.Host, count int) []time.Duration {
	t.Helper()
	ln := far.Listen(0)
	conn := near.Dial("tcp", netip.AddrPortFrom(far.Addr(), ln.Addr().(*net.TCPAddr).AddrPort().Port()))
	echo, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go io.Copy(echo, echo)
	var times []time.Duration
	b := []byte{1}
	for range count {
		start := time.Now()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times
}

func TestDelayOnTheWireAndItsChange(t *testing.T) {
	near, far := newLink(t, link.Shape{Delay: 30 * time.Millisecond}, link.Shape{Delay: 10 * time.Millisecond})
	for _, want := range []time.Duration{40 * time.Millisecond, 100 * time.Millisecond} {
		times := roundTrips(t, near, far, 11)
		if times[0] < want || times[5] > want+40*time.Millisecond {
			t.Errorf("round trips from %v, median %v, want %v and little more", times[0], times[5], want)
		}
		near.Reshape(link.Shape{Delay: 30 * time.Millisecond}, link.Shape{Delay: 70 * time.Millisecond})
	}
}

func TestRateOnTheWire(t *testing.T) {
	const rate, size = 5e6, 1 << 20
	near, far := newLink(t, link.Shape{Rate: rate}, link.Shape{})
	ln := far.Listen(0)
	conn := near.Dial("tcp", netip.AddrPortFrom(far.Addr(), ln.Addr().(*net.TCPAddr).AddrPort().Port()))
	sink, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	sent := make(chan error, 2)
	transfer := func(from, to net.Conn) meter.StreamReport {
		go func() {
			_, err := meter.Stream{Bytes: size}.Send(t.Context(), from)
			sent <- errors.Join(err, from.(*net.TCPConn).CloseWrite())
		}()
		report := meter.Receive(to)
		if err := errors.Join(report.Check(), <-sent); err != nil {
			t.Error(err)
		}
		return report
	}
	down, up := transfer(sink, conn), transfer(conn, sink)
	// 1 MiB is 1.7 s at the rate; headers and the slow start make it more, the queue's first frames less.
	if least, most := 1500*time.Millisecond, 6*time.Second; up.Elapsed < least || up.Elapsed > most {
		t.Errorf("up took %v, want %v to %v", up.Elapsed, least, most)
	}
	if down.Elapsed > up.Elapsed/2 {
		t.Errorf("down took %v without a limit, up %v with one", down.Elapsed, up.Elapsed)
	}
}

func TestStreamSurvivesABadLinkUnharmed(t *testing.T) {
	bad := link.Shape{Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.01, Duplicate: 0.05, Reorder: 0.05, ReorderBy: 2 * time.Millisecond, Corrupt: 0.01}
	near, far := newLink(t, bad, bad)
	ln := far.Listen(0)
	conn := near.Dial("tcp", netip.AddrPortFrom(far.Addr(), ln.Addr().(*net.TCPAddr).AddrPort().Port()))
	sink, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	up, down := meter.Stream{Bytes: 1 << 20}.Exchange(t.Context(), conn, sink)
	if up.Check() != nil || down.Check() != nil {
		t.Errorf("up %v, down %v", up, down)
	}
}

func TestOneDirectionDead(t *testing.T) {
	near, far := newLink(t, link.Shape{Loss: 1}, link.Shape{})
	if report := measure(t, near, far, meter.Datagrams{Count: 100, Linger: 50 * time.Millisecond}); report.Received != 0 {
		t.Errorf("through a dead link: %v", report)
	}
	up, _ := near.LinkCounters()
	if up.Lost == 0 || up.Delivered != 0 {
		t.Errorf("counters of the dead direction: %v", up)
	}
}

// BenchmarkStream is TCP through the link and back, to know what the emulator itself allows.
func BenchmarkStream(b *testing.B) {
	l := topo.New(b, topo.NoCapture())
	near, far := l.Public("near", topo.Uplink(link.Shape{})), l.Public("far")
	ln := far.Listen(0)
	conn := near.Dial("tcp", netip.AddrPortFrom(far.Addr(), ln.Addr().(*net.TCPAddr).AddrPort().Port()))
	sink, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	go io.Copy(io.Discard, sink)
	block := make([]byte, 256<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := conn.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	up, down := near.LinkCounters()
	b.Logf("up %v, down %v", up, down)
}
