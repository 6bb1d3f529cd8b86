package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// wantReset resets one end of a connection and wants the other reset, too.
func wantReset(t *testing.T, from, to net.Conn) {
	t.Helper()
	if err := from.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	await.Reset(t, "the other end", to)
}

// wantClosed wants that no one listens where the client looks.
func (c client) wantClosed(t *testing.T, port uint16) {
	t.Helper()
	conn, err := c.host.DialContext(t.Context(), "tcp", netip.AddrPortFrom(c.entry, port))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: dial: %v, want a refusal", c.name, err)
	}
	if err == nil {
		conn.Close()
	}
}

// Forwards come and go while the daemons run; what stays is not disturbed.
func TestPolicyTakesEffectAtOnce(t *testing.T) {
	w := newWorld(t)
	ln := w.plc.Listen(meterPort)
	w.plc.EchoUDP(meterPort)
	target := endpoint("tcp", w.plc.Addr(), meterPort)
	stays := w.offer("stays", "tcp", 7001, target)
	goes := append(w.offer("goes", "tcp", 7002, target), w.offer("goes-udp", "udp", 7002, endpoint("udp", w.plc.Addr(), meterPort))...)

	w.allow(t, stays...)
	type pair struct{ client, service net.Conn }
	connect := func(c client, port uint16) pair {
		t.Helper()
		return pair{c.dial(t, "tcp", port), await.Accept(t, ln)}
	}
	var staying, going []pair
	var flows []net.Conn
	for _, c := range w.clients() {
		staying = append(staying, connect(c, 7001))
		c.wantClosed(t, 7002)
	}
	w.allow(t, append(stays, goes...)...)
	for _, c := range w.clients() {
		p, flow := connect(c, 7002), c.dial(t, "udp", 7002)
		await.RoundTrip(t, p.client, p.service)
		await.RoundTrip(t, flow, flow)
		going, flows = append(going, p), append(flows, flow)
	}
	w.allow(t, stays...)
	for i, c := range w.clients() {
		await.Reset(t, "client", going[i].client)
		await.Reset(t, "service", going[i].service)
		w.laptop.WaitGone(goes[i].name)
		c.wantClosed(t, 7002)
		// Nobody listens for datagrams any more: the kernel says so.
		if _, err := flows[i].Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if n, err := flows[i].Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a datagram: %d bytes came back, %v; want a refusal", c.name, n, err)
		}
		await.RoundTrip(t, staying[i].client, staying[i].service)
	}
}

func TestForwardEndsWhenThePolicySaysSo(t *testing.T) {
	w := newWorld(t)
	ln := w.plc.Listen(meterPort)
	forwards := w.offer("ends", "tcp", entryPort, endpoint("tcp", w.plc.Addr(), meterPort))
	// RFC 3339 in a policy is to the second.
	until := time.Now().Add(6 * time.Second).Truncate(time.Second)
	for i := range forwards {
		forwards[i].more = fmt.Sprintf("until = %s\n", until.UTC().Format(time.RFC3339))
	}
	w.allow(t, forwards...)
	var ends []net.Conn
	for _, c := range w.clients() {
		client, service := c.dial(t, "tcp", entryPort), await.Accept(t, ln)
		await.RoundTrip(t, client, service)
		ends = append(ends, client, service)
	}
	if left := time.Until(until); left < 0 {
		t.Fatalf("this machine is too slow for the test: the forwards ended %v ago", -left)
	}
	for _, end := range ends {
		await.Reset(t, "client or service", end)
		if left := time.Until(until); left > 0 {
			t.Errorf("cut %v too early", left)
		} else if left < -5*time.Second {
			t.Errorf("cut %v late", -left)
		}
	}
	// Each portal has a clock of its own: the other may have cut the streams first.
	await.Until(t, "with the forwards down", func() error {
		for _, f := range w.laptop.Status().Forwards {
			if f.State != "down" || !strings.Contains(f.Why, "until has passed") {
				return fmt.Errorf("the status of %s is %s, %q", f.Name, f.State, f.Why)
			}
		}
		return nil
	})
	for _, c := range w.clients() {
		c.wantClosed(t, entryPort)
	}
}
