package exit

import (
	"bytes"
	"net"
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

func TestFlowOutlivesATargetThatIsAway(t *testing.T) {
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := target.LocalAddr().String()
	target.Close()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	conn, reason := w.open(wire.OpenFlow, w.grant("udp://"+addr))
	if reason != wire.ReasonNone {
		t.Fatal(reason)
	}
	for range 3 {
		if _, err := conn.Write([]byte("away")); err != nil {
			t.Fatal(err)
		}
	}
	target, err = net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if _, err := conn.Write([]byte("back")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, from, err := target.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "back" {
		t.Fatalf("target got %q, %v", buf[:n], err)
	}
	target.WriteTo([]byte("answer"), from)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if got := w.exit.Counters().Unreachable; got == 0 {
		t.Error("no ICMP port unreachable was counted")
	}
}
