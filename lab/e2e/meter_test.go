package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/topo"
)

// The port at which the entry portal listens for the meters, and the one at which they are served. TCP and UDP.
const entryPort, meterPort = 7000, 7007

// allowMeters lets clients reach the meters' service on plc.
func (w *world) allowMeters(t *testing.T) {
	t.Helper()
	var forwards []forward
	for _, scheme := range []string{"tcp", "udp"} {
		forwards = append(forwards, w.offer(scheme, scheme, entryPort, endpoint(scheme, w.addr(w.plc), meterPort))...)
	}
	w.allow(t, forwards...)
}

// dial connects to the entry portal. The connection is closed with the test, and does not stall for ever.
func (c client) dial(t *testing.T, network string, port uint16) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	conn, err := c.host.DialContext(ctx, network, netip.AddrPortFrom(c.entry, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	await.Limit(t, conn)
	return conn
}

// checkForwards carries a checked stream in both directions between each client and plc, and numbered datagrams there and
// back, of which none may be lost.
func (w *world) checkForwards(t *testing.T) {
	t.Helper()
	w.allowMeters(t)
	ln := w.plc.Listen(meterPort)
	w.plc.EchoUDP(meterPort)
	for _, c := range w.clients() {
		stream := meter.Stream{Bytes: 1 << 20}
		there, back := stream.Exchange(t.Context(), c.dial(t, "tcp", entryPort), await.Accept(t, ln))
		if err := errors.Join(there.Check(), back.Check()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		datagrams := meter.Datagrams{Count: 50, Interval: time.Millisecond, Key: []byte(c.name)}
		conn := c.dial(t, "udp", entryPort)
		await.RoundTrip(t, conn, conn) // while a flow is being opened, no more than a few datagrams wait
		report, err := datagrams.Measure(t.Context(), conn, conn.(*net.UDPConn))
		if err := errors.Join(err, report.Check()); err != nil || report.Lost > 0 {
			t.Errorf("%s: %v, %v", c.name, report, err)
		}
	}
}

// A home whose line is slow to answer, loses packets and mixes them up.
func TestNothingIsLostOverABadLine(t *testing.T) {
	bad := link.Shape{Delay: 20 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.01, Reorder: 0.01}
	home := site{router: append(commonHome.router, topo.Uplink(bad))}
	w := newWorldOf(t, home, commonOffice)
	w.allowMeters(t)
	ln := w.plc.Listen(meterPort)
	w.plc.EchoUDP(meterPort)

	w.each(t, func(t *testing.T, c client) {
		// Both at once, over the same carrier, for some seconds.
		datagrams := meter.Datagrams{Count: 400, Interval: 10 * time.Millisecond, Size: 300, Key: []byte("lab"), Linger: time.Second}
		conn := c.dial(t, "udp", entryPort)
		measured := make(chan error, 1)
		go func() {
			report, err := datagrams.Measure(t.Context(), conn, conn.(*net.UDPConn))
			t.Log(report)
			if report.Received < datagrams.Count/2 {
				err = errors.Join(err, errors.New("more than half of the datagrams were lost"))
			}
			measured <- errors.Join(err, report.Check())
		}()
		client, service := c.dial(t, "tcp", entryPort), await.Accept(t, ln)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		there, back := meter.Stream{}.Exchange(ctx, client, service)
		t.Logf("there: %v", there)
		t.Logf("back: %v", back)
		if err := errors.Join(there.Check(), back.Check(), <-measured); err != nil {
			t.Error(err)
		}
	})
	up, down := w.home.LinkCounters()
	for way, counters := range map[string]link.Counters{"up": up, "down": down} {
		if counters.Lost == 0 || counters.HeldBack == 0 {
			t.Errorf("the line lost and reordered nothing %s, so that the test shows nothing: %v", way, counters)
		}
	}
}

func TestDatagramsKeepTheirSize(t *testing.T) {
	w := newWorld(t)
	w.allowMeters(t)
	w.plc.EchoUDP(meterPort)
	w.each(t, func(t *testing.T, c client) {
		conn := c.dial(t, "udp", entryPort)
		got := make([]byte, 1<<16)
		for _, size := range []int{0, 1, 1472, 1473, 9000, 65_507, 1, 0} {
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(i * 31 >> 3)
			}
			if _, err := conn.Write(sent); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			n, err := conn.Read(got)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if string(got[:n]) != string(sent) {
				t.Errorf("%d bytes came back as %d others", size, n)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(got); err == nil {
			t.Errorf("another datagram of %d bytes came back", n)
		}
	})
}

// A client's half-close reaches the service, which answers and ends; a reset of either arrives as a reset.
func TestEndsOfAConnectionAreCarriedThrough(t *testing.T) {
	w := newWorld(t)
	w.allowMeters(t)
	ln := w.plc.Listen(meterPort)
	w.each(t, func(t *testing.T, c client) {
		client, service := c.dial(t, "tcp", entryPort), await.Accept(t, ln)
		write(t, client, "question")
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(service); string(got) != "question" || err != nil {
			t.Errorf("the service got %q, %v", got, err)
		}
		write(t, service, "answer")
		if err := service.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
			t.Errorf("the client got %q, %v", got, err)
		}

		for range 50 { // at whatever moment of the opening
			client, service = c.dial(t, "tcp", entryPort), await.Accept(t, ln)
			wantReset(t, client, service)
			client, service = c.dial(t, "tcp", entryPort), await.Accept(t, ln)
			wantReset(t, service, client)
		}
	})
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}
