package carrier_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// handshake makes carriers of a connection's two ends, and queues their HELLOs.
func handshake(t *testing.T, client, server *one, a, b net.Conn) {
	t.Helper()
	cc, sc := carriertest.TLS(t)
	var err error
	client.Conn, server.Conn, err = carriertest.OverTCP(t.Context(), a, b, cc, sc, wire.NewSessionID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	client.SendHello(wire.TunnelHello{})
	server.SendHello(wire.TunnelHello{})
}

// Streams that were ready together take turns, and what is urgent or small
// overtakes the bulk.
func TestStreamsTakeTurns(t *testing.T) {
	a, b := carriertest.TCP(t)
	client, server := &one{}, &one{}
	handshake(t, client, server, a, b)
	// Nothing runs yet, so the order is the writer's alone.
	release := carrier.HoldWriter(client.Conn)
	const turns = 5
	sources := make([]*script, 3)
	lanes := make([]carrier.Lane, 3)
	for i := range sources {
		sources[i] = &script{}
		for range turns {
			sources[i].frames = append(sources[i].frames, data(uint32(i+1), wire.MaxData))
		}
		lanes[i] = client.Lane(uint32(i+1), sources[i])
		lanes[i].Ready()
	}
	small := &script{frames: [][]byte{data(9, 1)}}
	client.Lane(9, small).Ready()
	urgent := &script{urgent: wire.AppendFrame(nil, 8, wire.Ack{Epoch: 1})}
	client.Lane(8, urgent).Urgent()
	release()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	client.run(ctx, &running)
	server.run(ctx, &running)
	var order []uint32
	for range 3*turns + 2 {
		order = append(order, (<-server.got).header.Stream)
	}
	if order[0] != 8 {
		t.Errorf("first came stream %d, want the urgent frame of 8; order %v", order[0], order)
	}
	for i, stream := range order {
		if stream == 9 && i > 4 {
			t.Errorf("the small frame came as number %d: %v", i, order)
		}
	}
	// After any number of frames no stream is more than a turn ahead.
	seen := make(map[uint32]int)
	for _, stream := range order {
		seen[stream]++
		least, most := turns, 0
		for i := range uint32(3) {
			least, most = min(least, seen[i+1]), max(most, seen[i+1])
		}
		if most-least > 1 {
			t.Fatalf("turns are not fair: %v", order)
		}
	}
}

func TestDatagramsAreDroppedWhenTheQueueIsFull(t *testing.T) {
	client, server := newCarriers(t, wire.CarrierTCP)
	// Somebody is writing, and the socket takes nothing.
	release := carrier.HoldWriter(client.Conn)
	taken := 0
	for i := range carrier.MaxDatagrams + 10 {
		if client.Datagram(3, []byte{byte(i)}) {
			taken++
		}
	}
	if taken != carrier.MaxDatagrams || client.Stats().Dropped != 10 {
		t.Errorf("taken %d, dropped %d; want %d, 10", taken, client.Stats().Dropped, carrier.MaxDatagrams)
	}
	// What was taken goes out in order when the socket is free again.
	release()
	for i := range carrier.MaxDatagrams {
		if got := <-server.got; !bytes.Equal(got.body, []byte{byte(i)}) {
			t.Fatalf("datagram %d arrived as %v", i, got.body)
		}
	}
}

// scripted joins a carrier to a TLS connection that the test writes itself.
func scripted(t *testing.T) (peer *tls.Conn, server *one, hello []byte) {
	t.Helper()
	a, b := carriertest.TCP(t)
	cc, sc := carriertest.TLS(t)
	session := wire.NewSessionID()
	peer = tls.Client(a, cc)
	var shaking sync.WaitGroup
	shaking.Go(func() { peer.Handshake() })
	c, err := carrier.OverTCP(t.Context(), b, carrier.Config{Session: session, TLS: sc})
	if err != nil {
		t.Fatal(err)
	}
	shaking.Wait()
	c.SendHello(wire.TunnelHello{})
	server = &one{Conn: c}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	server.run(ctx, &running)
	t.Cleanup(func() {
		cancel()
		peer.Close()
		running.Wait()
	})
	return peer, server, wire.AppendFrame(nil, 0, wire.TunnelHello{Version: wire.TunnelVersion, Session: session})
}

// However the bytes are cut into records, the frames are the same.
func TestFramesAreParsedAlikeInAnyRecords(t *testing.T) {
	peer, server, hello := scripted(t)
	two := append(data(1, 100), data(2, 3000)...)
	if _, err := peer.Write(append(hello, two...)); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := peer.Write(two[i*len(two)/50 : (i+1)*len(two)/50]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		got := <-server.got
		if want := []int{100, 3000}[i%2]; got.header.Stream != uint32(i%2+1) || len(got.body) != 12+want {
			t.Errorf("frame %d: stream %d, %d bytes", i, got.header.Stream, len(got.body))
		}
	}
}

// A million records of one byte each would be a cheap way to keep a portal
// busy.
func TestTinyRecordsEndTheCarrier(t *testing.T) {
	peer, server, hello := scripted(t)
	if _, err := peer.Write(hello); err != nil {
		t.Fatal(err)
	}
	frame := data(1, 1000)
	records := 0
	for broken := false; !broken; {
		for i := range frame {
			if _, err := peer.Write(frame[i : i+1]); err != nil {
				broken = true
				break
			}
			records++
		}
		if records > 1e6 {
			t.Fatal("a million records were taken")
		}
	}
	if err := <-server.ended; err == nil || !strings.Contains(err.Error(), "too many records") {
		t.Errorf("Run: %v", err)
	}
}

func TestFrameThatIsCutIsNoCleanEnd(t *testing.T) {
	peer, server, hello := scripted(t)
	frame := data(1, 1000)
	if _, err := peer.Write(append(hello, frame[:len(frame)-1]...)); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if err := <-server.ended; err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("Run: %v", err)
	}
	if len(server.got) != 0 {
		t.Error("a frame that is cut was handled")
	}
}

func TestFirstFrameMustBeTheRightHello(t *testing.T) {
	for _, test := range []struct {
		name  string
		first func(hello []byte) []byte
		want  string
	}{
		{"another frame", func([]byte) []byte { return data(1, 1) }, "not HELLO"},
		{"a later version", func(b []byte) []byte { b[wire.FrameHeaderLen+1]++; return b }, fmt.Sprintf("the peer speaks version %d of the tunnel protocol, this portal version %d: upgrade this portal", wire.TunnelVersion+1, wire.TunnelVersion)},
		{"an earlier version", func(b []byte) []byte { b[wire.FrameHeaderLen+1]--; return b }, fmt.Sprintf("the peer speaks version %d of the tunnel protocol, this portal version %d: upgrade the peer", wire.TunnelVersion-1, wire.TunnelVersion)},
		{"another session", func(b []byte) []byte { b[wire.FrameHeaderLen+2]++; return b }, "HELLO names session"},
		{"another connection", func(b []byte) []byte { b[wire.FrameHeaderLen+19]++; return b }, "carrier 1"},
		{"a stream's number", func(b []byte) []byte { b[7]++; return b }, "HELLO names"},
		{"cut", func(b []byte) []byte {
			return wire.AppendFrame(nil, 0, wire.TunnelPing{})[:0:0]
		}, "closed"},
	} {
		peer, server, hello := scripted(t)
		peer.Write(test.first(hello))
		if test.name == "cut" {
			peer.Close()
		}
		if err := <-server.ended; err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// counted counts the writes to a connection.
type counted struct {
	net.Conn
	writes atomic.Int32
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// The peer decides by its HELLO which connection it takes: before that, none
// hears anything.
func TestNothingIsSentBeforeTheHelloThatIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cc, sc := carriertest.TLS(t)
		session := wire.NewSessionID()
		a, b := net.Pipe()
		socket := &counted{Conn: b}
		peer := tls.Client(a, cc)
		var running sync.WaitGroup
		running.Go(func() { peer.Handshake() })
		c, err := carrier.OverTCP(t.Context(), socket, carrier.Config{Session: session, TLS: sc})
		if err != nil {
			t.Fatal(err)
		}
		before := socket.writes.Load()
		awaited := make(chan error, 1)
		running.Go(func() {
			_, err := c.AwaitHello(t.Context())
			awaited <- err
		})
		synctest.Wait()
		if n := socket.writes.Load() - before; n > 0 || len(awaited) > 0 {
			t.Errorf("%d writes before HELLO, returned: %v", n, len(awaited) > 0)
		}
		hello := wire.AppendFrame(nil, 0, wire.TunnelHello{Version: wire.TunnelVersion, Session: session})
		if _, err := peer.Write(hello); err != nil {
			t.Fatal(err)
		}
		if err := <-awaited; err != nil {
			t.Fatal(err)
		}
		c.SendHello(wire.TunnelHello{})
		server := &one{Conn: c}
		ctx, cancel := context.WithCancel(t.Context())
		server.got, server.ended = make(sink, 1), make(chan error, 1)
		running.Go(func() { server.ended <- server.Run(ctx, server.got) })
		answer := make([]byte, len(hello))
		if _, err := io.ReadFull(peer, answer); err != nil || !bytes.Equal(answer, hello) {
			t.Errorf("the answer to HELLO: %x, %v", answer, err)
		}
		running.Go(func() { io.Copy(io.Discard, peer) })
		// A second HELLO is one too many.
		if _, err := peer.Write(hello); err != nil {
			t.Fatal(err)
		}
		if err := <-server.ended; err == nil || !strings.Contains(err.Error(), "HELLO twice") {
			t.Errorf("Run: %v", err)
		}
		cancel()
		a.Close()
		running.Wait()
	})
}

func TestHelloIsAwaitedNoLongerThanTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cc, sc := carriertest.TLS(t)
		a, b := net.Pipe()
		peer := tls.Client(a, cc)
		var running sync.WaitGroup
		running.Go(func() {
			peer.Handshake()
			io.Copy(io.Discard, peer)
		})
		c, err := carrier.OverTCP(t.Context(), b, carrier.Config{TLS: sc})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.AwaitHello(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("AwaitHello: %v", err)
		}
		if _, err := b.Write(nil); err == nil {
			t.Error("the connection is open")
		}
		running.Wait()
		a.Close()
	})
}
