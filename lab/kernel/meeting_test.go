package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
)

// meeting is a session of the two sides.
type meeting struct {
	daemon.Session
	w  *world
	at [2]netip.Addr // the relay's address for each leg
}

// meet makes a session. Terms may be zero.
func (w *world) meet(terms daemon.Terms) *meeting {
	w.t.Helper()
	for i, s := range w.sides {
		if !terms.Sources[i].IsValid() {
			terms.Sources[i] = s.source(w.version)
		}
	}
	at := w.relayAt(0).Addr()
	return &meeting{Session: w.broker.Open(w.relay, terms), w: w, at: [2]netip.Addr{at, at}}
}

// udpLeg is a bound UDP leg. What is written goes to the relay, and what is read may come from anybody.
type udpLeg struct {
	meter.Peer
	mapped netip.AddrPort // as the relay sees it
}

// bind binds both UDP legs.
func (m *meeting) bind() (legs [2]udpLeg) {
	m.w.t.Helper()
	for i := range legs {
		legs[i] = m.bindLeg(i, 1)
	}
	return legs
}

// bindLeg binds one leg by a new socket.
func (m *meeting) bindLeg(i int, counter uint64) udpLeg {
	t := m.w.t
	t.Helper()
	conn := m.w.sides[i].ListenUDP(0)
	if err := conn.SetReadBuffer(4 << 20); err != nil { // a busy machine reads late
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	at := netip.AddrPortFrom(m.at[i], m.Ready.UDP)
	mapped, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: m.ID, Leg: uint8(i)}, m.Secrets[i], counter), conn, at)
	if err != nil {
		t.Fatal(err)
	}
	return udpLeg{meter.Peer{PacketConn: conn, Addr: net.UDPAddrFromAddrPort(at)}, mapped}
}

// packetAt is where connection n of a leg is dialled.
func (m *meeting) packetAt(i, n int) netip.AddrPort {
	m.w.t.Helper()
	if m.Ready.Packet[i] == 0 {
		m.w.t.Fatalf("the relay gave the session no packet ports: %+v", m.Ready)
	}
	return netip.AddrPortFrom(m.at[i], m.Ready.Packet[i]+uint16(n%leg.PacketPorts))
}

// connect opens connection n: both sides dial.
func (m *meeting) connect(n int) (ends [2]net.Conn) {
	m.w.t.Helper()
	ends, err := m.tryConnect(n, await.Patience)
	if err != nil {
		m.w.t.Fatalf("connection %d: %v", n, err)
	}
	for _, end := range ends {
		await.Limit(m.w.t, end)
	}
	return ends
}

// tryConnect is connect for a connection that may fail, and gives it so much time. The connections are closed with the
// test.
func (m *meeting) tryConnect(n int, within time.Duration) (ends [2]net.Conn, err error) {
	m.w.t.Helper()
	ctx, cancel := context.WithTimeout(m.w.t.Context(), within)
	defer cancel()
	var errs [2]error
	dialled := make(chan int)
	for i, s := range m.w.sides {
		to := m.packetAt(i, n)
		go func() {
			ends[i], errs[i] = s.DialContext(ctx, "tcp", to)
			dialled <- i
		}()
	}
	for range ends {
		if i := <-dialled; ends[i] != nil {
			m.w.t.Cleanup(func() { ends[i].Close() })
		}
	}
	return ends, errors.Join(errs[0], errs[1])
}

// checkStream carries a checked stream of so many bytes in both directions.
func checkStream(t testing.TB, ends [2]net.Conn, size int64) {
	t.Helper()
	there, back := meter.Stream{Bytes: size}.Exchange(t.Context(), ends[0], ends[1])
	if err := errors.Join(there.Check(), back.Check()); err != nil {
		t.Error(err)
	}
}

// datagrams are what checkDatagrams sends: a thousand a second.
func datagrams(count int) meter.Datagrams {
	return meter.Datagrams{Count: count, Interval: time.Millisecond, Key: []byte("lab")}
}

// checkDatagrams sends datagrams in both directions at once and wants all to arrive once.
func checkDatagrams(t testing.TB, legs [2]udpLeg, d meter.Datagrams) {
	t.Helper()
	done := make(chan error)
	for i := range legs {
		go func() { done <- lossless(t.Context(), d, legs[i], legs[1-i]) }()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
}

// lossless sends datagrams from one leg to the other and reports if not all arrive, once each.
func lossless(ctx context.Context, d meter.Datagrams, from, to udpLeg) error {
	report, err := d.Measure(ctx, from, to)
	if err := errors.Join(err, report.Check()); err != nil {
		return err
	}
	if report.Lost > 0 {
		return fmt.Errorf("datagrams: %v", report)
	}
	return nil
}
