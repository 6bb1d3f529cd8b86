package exit

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/proto/wire"
)

func TestFlowKeepsDatagramsApart(t *testing.T) {
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	conn, reason := w.open(wire.OpenFlow, w.grant("udp://"+target.LocalAddr().String()))
	if reason != wire.ReasonNone {
		t.Fatal(reason)
	}
	buf := make([]byte, wire.MaxDatagram+1)
	for _, size := range []int{0, 1, 1472, wire.MaxDatagram} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if n, err := conn.Write(sent); n != size || err != nil {
			t.Fatalf("write %d: %d, %v", size, n, err)
		}
		n, from, err := target.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("target got %d bytes of %d, %v", n, size, err)
		}
		if _, err := target.WriteTo(sent, from); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); err != nil || !bytes.Equal(buf[:n], sent) {
			t.Fatalf("read back %d bytes of %d, %v", n, size, err)
		}
	}
	if n, err := conn.Write(make([]byte, wire.MaxDatagram+1)); err != nil {
		t.Errorf("a datagram that is too long: %d, %v; it should be lost", n, err)
	}
	if got := w.exit.Counters(); got != (Counters{Oversized: 1}) {
		t.Errorf("counters %+v", got)
	}
}

// TestFlowOutlivesATargetThatIsAway: a target that has answered once finds its
// client at the same port when it is back.
func TestFlowOutlivesATargetThatIsAway(t *testing.T) {
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := target.LocalAddr().String()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	conn, reason := w.open(wire.OpenFlow, w.grant("udp://"+addr))
	if reason != wire.ReasonNone {
		t.Fatal(reason)
	}
	buf := make([]byte, 16)
	ask := func(question string) (from net.Addr) {
		t.Helper()
		if _, err := conn.Write([]byte(question)); err != nil {
			t.Fatal(err)
		}
		n, from, err := target.ReadFrom(buf)
		if err != nil || string(buf[:n]) != question {
			t.Fatalf("target got %q, %v", buf[:n], err)
		}
		target.WriteTo([]byte("answer"), from)
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		return from
	}
	before := ask("first")
	target.Close()
	for range 3 {
		if _, err := conn.Write([]byte("away")); err != nil {
			t.Fatal(err)
		}
	}
	if target, err = net.ListenPacket("udp", addr); err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if after := ask("back"); after.String() != before.String() {
		t.Errorf("the client came from %v, and now from %v", before, after)
	}
	if got := w.exit.Counters().Unreachable; got == 0 {
		t.Error("no ICMP port unreachable was counted")
	}
}

// TestFlowToNobodyEndsWithItsReason: who waits in Read, as the tunnel does, is
// told why, whichever call the system tells first.
func TestFlowToNobodyEndsWithItsReason(t *testing.T) {
	for _, uri := range []string{"udp://127.0.0.1:", "udp://[::1]:"} {
		host := strings.TrimPrefix(strings.TrimSuffix(uri, ":"), "udp://")
		for i := range 20 {
			nobody, err := net.ListenPacket("udp", host+":0")
			if err != nil {
				t.Skip("no IPv6 on loopback here")
			}
			_, port, _ := net.SplitHostPort(nobody.LocalAddr().String())
			nobody.Close()
			w := newWorld(t, allow.List{}, net.DefaultResolver)
			conn, reason := w.open(wire.OpenFlow, w.grant(uri+port))
			if reason != wire.ReasonNone {
				t.Fatal(reason)
			}
			read := make(chan error, 1)
			if i%2 == 0 {
				go func() { _, err := conn.Read(make([]byte, 1)); read <- err }()
			}
			for range 3 {
				if _, err := conn.Write([]byte("anybody?")); err != nil {
					t.Fatal(err)
				}
			}
			if i%2 == 1 {
				go func() { _, err := conn.Read(make([]byte, 1)); read <- err }()
			}
			if err := <-read; !isAny(err, refusedErrnos) {
				t.Fatalf("%s: read %v, want refused", uri, err)
			}
			if w.exit.Counters().Unreachable == 0 {
				t.Errorf("%s: nothing was counted", uri)
			}
		}
	}
}
