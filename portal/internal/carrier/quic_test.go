package carrier_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

// hostile is a carrier, as the TLS server, whose peer is the test itself.
type hostile struct {
	*one
	peer    *quic.Conn
	control *quic.Stream
}

// newHostile joins a carrier to a peer that has said HELLO.
func newHostile(t *testing.T) *hostile {
	t.Helper()
	cc, sc := carriertest.TLS(t)
	peer, conn := carriertest.QUIC(t, cc, sc)
	c, err := carrier.OverQUIC(t.Context(), conn, carrier.Config{Session: wire.SessionID{1}})
	if err != nil {
		t.Fatal(err)
	}
	c.SendHello(wire.TunnelHello{})
	h := &hostile{one: &one{Conn: c}, peer: peer}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	h.run(ctx, &running)
	t.Cleanup(func() {
		cancel()
		peer.CloseWithError(0, "")
		running.Wait()
	})
	h.control = h.say(t, wire.AppendFrame(nil, 0, wire.TunnelHello{Version: wire.TunnelVersion, Session: wire.SessionID{1}}))
	return h
}

// say writes on a new QUIC stream.
func (h *hostile) say(t *testing.T, b []byte) *quic.Stream {
	t.Helper()
	s, err := h.peer.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// lives asks the carrier for an answer.
func (h *hostile) lives(t *testing.T) {
	t.Helper()
	ping := wire.TunnelPing{Token: 0x1234567890abcdef}
	if _, err := h.control.Write(wire.AppendFrame(nil, 0, ping)); err != nil {
		t.Fatal(err)
	}
	pong := wire.AppendFrame(nil, 0, wire.TunnelPong(ping))
	var got []byte
	for b := make([]byte, 1000); !bytes.Contains(got, pong); {
		n, err := h.control.Read(b)
		if err != nil {
			t.Fatalf("the carrier does not answer: %v", err)
		}
		got = append(got, b[:n]...)
	}
}

func TestHostileQUICPeerLosesItsCarrier(t *testing.T) {
	giant := make([]byte, wire.FrameHeaderLen)
	wire.FrameHeader{Type: wire.FrameData, Length: 0xffffff, Stream: 1}.PutTo(giant)
	for _, test := range []struct {
		name string
		do   func(t *testing.T, h *hostile)
		want string
	}{
		{"a stream that begins with DATA", func(t *testing.T, h *hostile) { h.say(t, data(1, 10)) }, "DATA of stream 1"},
		{"a stream that begins with PING", func(t *testing.T, h *hostile) { h.say(t, wire.AppendFrame(nil, 0, wire.TunnelPing{})) }, "PING of stream 0"},
		{"a frame of another stream", func(t *testing.T, h *hostile) { h.say(t, append(open(1), data(3, 10)...)) }, "DATA of stream 3"},
		{"PING on a stream", func(t *testing.T, h *hostile) {
			h.say(t, append(open(1), wire.AppendFrame(nil, 1, wire.TunnelPing{})...))
		}, "PING"},
		{"a datagram on a stream", func(t *testing.T, h *hostile) {
			h.say(t, append(open(1), wire.AppendFrame(nil, 1, wire.Datagram{})...))
		}, "DATAGRAM of stream 1"},
		{"HELLO on a stream", func(t *testing.T, h *hostile) {
			h.say(t, append(open(1), wire.AppendFrame(nil, 1, wire.TunnelHello{})...))
		}, "HELLO twice"},
		{"half a frame", func(t *testing.T, h *hostile) {
			s := h.say(t, append(open(1), data(1, 1000)[:500]...))
			s.Close()
		}, "unexpected EOF"},
		{"a stream that is cut", func(t *testing.T, h *hostile) {
			s := h.say(t, open(1))
			<-h.got
			s.CancelWrite(7)
		}, "read stream 1"},
		{"a giant frame", func(t *testing.T, h *hostile) { h.say(t, append(open(1), giant...)) }, "at most"},
		{"a giant frame on the control stream", func(t *testing.T, h *hostile) { h.control.Write(giant) }, "at most"},
		{"a stream's DATA on the control stream", func(t *testing.T, h *hostile) { h.control.Write(data(1, 10)) }, "on the control stream"},
		{"many large frames, each in part", func(t *testing.T, h *hostile) {
			half := append(open(1), data(1, wire.MaxData)[:2000]...)
			for number := uint32(1); number < 3000; number += 2 {
				half[7], half[6] = byte(number), byte(number>>8)
				at := len(open(1))
				half[at+7], half[at+6] = byte(number), byte(number>>8)
				s, err := h.peer.OpenStream()
				if err != nil {
					return
				}
				s.Write(half)
			}
		}, "in part"},
		{"a datagram that is none", func(t *testing.T, h *hostile) { h.peer.SendDatagram([]byte{9, 9, 9}) }, "malformed"},
		{"a part that is too short", func(t *testing.T, h *hostile) {
			h.peer.SendDatagram(wire.Fragment{Stream: 1, Part: true, Length: 60000, Data: make([]byte, 100)}.AppendTo(nil))
		}, "malformed"},
		{"PAD that is not empty", func(t *testing.T, h *hostile) {
			b := wire.AppendFrame(nil, 0, wire.Pad{Length: 10})
			b[len(b)-1] = 1
			h.control.Write(b)
		}, "PAD"},
		{"the end of the control stream", func(t *testing.T, h *hostile) { h.control.Close() }, "the peer closed"},
		{"the end of the connection", func(t *testing.T, h *hostile) { h.peer.CloseWithError(7, "") }, "broke the connection off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, other := newHostile(t), newHostile(t)
			test.do(t, h)
			h.wantEnd(t, "the carrier", test.want)
			other.lives(t)
		})
	}
}

func TestQUICPeerMustBeginWithHello(t *testing.T) {
	cc, sc := carriertest.TLS(t)
	peer, conn := carriertest.QUIC(t, cc, sc)
	c, err := carrier.OverQUIC(t.Context(), conn, carrier.Config{Session: wire.SessionID{1}})
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{one: &one{Conn: c}, peer: peer}
	h.say(t, open(1))
	if _, err := c.AwaitHello(t.Context()); err == nil || !strings.Contains(err.Error(), "not HELLO") {
		t.Errorf("AwaitHello: %v", err)
	}
	<-peer.Context().Done()
}

func TestQUICHelloIsAwaitedNoLongerThanTheContext(t *testing.T) {
	cc, sc := carriertest.TLS(t)
	peer, conn := carriertest.QUIC(t, cc, sc)
	c, err := carrier.OverQUIC(t.Context(), conn, carrier.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.AwaitHello(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("AwaitHello: %v", err)
	}
	<-peer.Context().Done()
}

// A peer may open as many streams as a tunnel has, and no more; nothing that it
// does not say costs the others.
func TestManySilentStreamsAreBounded(t *testing.T) {
	h := newHostile(t)
	opened := 0
	for ; opened < 10000; opened++ {
		s, err := h.peer.OpenStream()
		if err != nil {
			break
		}
		if _, err := s.Write([]byte{byte(wire.FrameOpen)}); err != nil {
			t.Fatal(err)
		}
	}
	if opened < 4096 || opened > 5000 {
		t.Errorf("%d streams could be opened", opened)
	}
	if _, err := h.peer.OpenUniStream(); err == nil {
		t.Error("a unidirectional stream could be opened")
	}
	h.lives(t)
}

// When a stream comes back on another QUIC stream, what still comes on the first
// means nothing.
func TestFramesOfAReplacedStreamMeanNothing(t *testing.T) {
	h := newHostile(t)
	first := h.say(t, open(1))
	<-h.got
	h.say(t, wire.AppendFrame(nil, 1, wire.Resume{Epoch: 2}))
	if got := <-h.got; got.header.Type != wire.FrameResume {
		t.Fatalf("came %v", got.header.Type)
	}
	// Whether the carrier takes it no more, or drops it, it is not handled.
	_, _ = first.Write(data(1, 10))
	<-first.Context().Done() // it has asked for no more
	h.lives(t)
	if len(h.got) > 0 {
		t.Errorf("%v was handled", (<-h.got).header.Type)
	}
}

// A peer that wants no more of a stream stops that alone.
func TestPeerThatStopsAStreamStopsThatAlone(t *testing.T) {
	h := newHostile(t)
	s := h.say(t, open(1))
	<-h.got
	src := &script{frames: [][]byte{data(1, 100)}}
	lane := h.Lane(1, src)
	lane.Write()
	if _, err := s.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	s.CancelRead(0)
	h.lives(t)
	for range 1000 {
		src.add(data(1, wire.MaxData))
	}
	lane.Ready()
	h.lives(t)
	lane.Close()
}
