package traffic_test

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/traffic"
)

// gate stands between the ends of a connection and can be shut.
type gate struct{ shut atomic.Bool }

// pair makes a connection over the loopback device whose bytes from client to service pass the gate.
func (g *gate) pair(t *testing.T, harm func([]byte)) traffic.Pair {
	t.Helper()
	dial := func() (client, service net.Conn) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		return client, await.Accept(t, ln)
	}
	client, near := dial()
	far, service := dial()
	go func() {
		defer near.(*net.TCPConn).CloseWrite()
		io.Copy(near, far)
	}()
	go func() {
		defer far.(*net.TCPConn).CloseWrite()
		b := make([]byte, 4096)
		for {
			n, err := near.Read(b)
			if err != nil {
				return
			}
			for g.shut.Load() {
				await.Passing(t, time.Millisecond)
			}
			harm(b[:n])
			far.Write(b[:n])
		}
	}()
	for _, conn := range []net.Conn{near, far} {
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Time{})
	}
	return traffic.Pair{Client: client, Service: service}
}

func TestStallIsSeenAndItsEnd(t *testing.T) {
	g := new(gate)
	tr := traffic.Start(t, traffic.Load{Pairs: []traffic.Pair{g.pair(t, func([]byte) {})}})
	tr.Flows(await.Patience)
	g.shut.Store(true)
	await.Passing(t, 300*time.Millisecond)
	g.shut.Store(false)
	tr.Flows(await.Patience)
	got := tr.End()
	if got.Err != nil {
		t.Error(got.Err)
	}
	if got.Stall < 250*time.Millisecond || got.Stall > 2*time.Second {
		t.Errorf("longest stall %v, want some 300 ms", got.Stall)
	}
}

func TestChangedBytesAreSeen(t *testing.T) {
	var harmed bool
	harm := func(b []byte) {
		if !harmed && len(b) > 2000 {
			b[1000] ^= 1
			harmed = true
		}
	}
	tr := traffic.Start(t, traffic.Load{Pairs: []traffic.Pair{new(gate).pair(t, harm)}})
	tr.Flows(await.Patience)
	if got := tr.End(); got.Err == nil || !strings.Contains(got.Err.Error(), "stream 0 there") {
		t.Errorf("it says %v", got.Err)
	}
}
