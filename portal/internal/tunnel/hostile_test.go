package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// hostile is a proven portal that sends what it likes: a carrier with no
// tunnel above it.
type hostile struct {
	carrier.Conn
	t      *testing.T
	tunnel *Tunnel // what it is joined to, the TLS server
	meet   *meet
	ended  chan error
	frames chan received
	run    func(c carrier.Conn)
}

// received is a frame that the hostile portal got.
type received struct {
	on     carrier.Conn
	stream uint32
	typ    wire.FrameType
	body   []byte
}

// hears is the hostile portal's Handler for one carrier.
type hears struct {
	*hostile
	on carrier.Conn
}

// Hello implements carrier.Handler.
func (h hears) Hello(wire.TunnelHello) error { return nil }

// Silent implements carrier.Handler.
func (h hears) Silent(bool) {}

// Frame implements carrier.Handler.
func (h hears) Frame(f wire.FrameHeader, body []byte) error {
	h.frames <- received{h.on, f.Stream, f.Type, bytes.Clone(body)}
	return nil
}

// newHostile joins a hostile TLS client to a tunnel with that Handler.
func newHostile(t *testing.T, exit Handler, change func(c *Config)) *hostile {
	t.Helper()
	cfg := Config{Handler: exit, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	h := &hostile{t: t, tunnel: New(cfg), meet: newMeet(t, overTCP(t)), ended: make(chan error, 1), frames: make(chan received, 10000)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.ended <- h.tunnel.Run(ctx) })
	h.run = func(c carrier.Conn) { running.Go(func() { c.Run(ctx, hears{h, c}) }) }
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	h.Conn = h.another()
	return h
}

// another makes a further carrier to the tunnel, of which the hostile portal
// has the client's end.
func (h *hostile) another() carrier.Conn {
	h.t.Helper()
	r, err := h.meet.road(context.Background(), uint16(len(h.meet.roads)))
	if err != nil {
		h.t.Fatal(err)
	}
	mine, other := r.client, r.server
	if h.tunnel.cfg.Client {
		mine, other = other, mine
	}
	if err := h.tunnel.Attach(other, theWay{}); err != nil {
		h.t.Fatal(err)
	}
	h.run(mine)
	return mine
}

func (h *hostile) send(stream uint32, frames ...wire.Frame) { sendOn(h.Conn, stream, frames...) }

func sendOn(c carrier.Conn, stream uint32, frames ...wire.Frame) {
	for _, f := range frames {
		c.Send(wire.AppendFrame(nil, stream, f))
	}
}

// want waits for a frame of that type for that stream and skips others.
func (h *hostile) want(stream uint32, typ wire.FrameType) []byte {
	h.t.Helper()
	return h.wantOn(nil, stream, typ)
}

// wantOn is want for one carrier.
func (h *hostile) wantOn(c carrier.Conn, stream uint32, typ wire.FrameType) []byte {
	h.t.Helper()
	for f := range h.frames {
		if f.stream == stream && f.typ == typ && (c == nil || c == f.on) {
			return f.body
		}
		if f.typ == wire.FrameClose {
			m, _ := wire.ParseTunnelClose(f.body)
			h.t.Fatalf("waiting for %v of stream %d: the tunnel was closed: %v %s", typ, stream, m.Reason, m.Text)
		}
	}
	return nil
}

// wantClosed waits until the tunnel is closed for a broken protocol, and returns
// the CLOSE.
func (h *hostile) wantClosed(what string) wire.TunnelClose {
	h.t.Helper()
	for f := range h.frames {
		if f.typ != wire.FrameClose {
			continue
		}
		m, err := wire.ParseTunnelClose(f.body)
		if err != nil || m.Reason != wire.ReasonProtocol {
			h.t.Errorf("%s: CLOSE %v %q, %v; want a protocol error", what, m.Reason, m.Text, err)
		}
		wantEnd(h.t, <-h.ended, EndError{Reason: wire.ReasonProtocol})
		return m
	}
	return wire.TunnelClose{}
}

var streamOpen = wire.Open{Kind: wire.OpenStream, Grant: benchGrant, Limit: 1 << 20}

// raw is a frame with a body of its own.
type raw struct {
	typ  wire.FrameType
	body []byte
}

func (r raw) FrameType() wire.FrameType { return r.typ }
func (r raw) AppendTo(b []byte) []byte  { return append(b, r.body...) }

// dialsForEver is a Handler whose targets do not answer.
var dialsForEver handler = func(ctx context.Context, _ wire.Open) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Each of these closes the tunnel, and nothing else: the daemon goes on.
func TestBrokenProtocolClosesTheTunnel(t *testing.T) {
	open := func(id uint32) func(h *hostile) { return func(h *hostile) { h.send(id, streamOpen) } }
	send := func(id uint32, f ...wire.Frame) func(h *hostile) { return func(h *hostile) { h.send(id, f...) } }
	for _, test := range []struct {
		name  string
		steps []func(h *hostile)
	}{
		{"a number of the other side's", []func(*hostile){open(2)}},
		{"number 0", []func(*hostile){open(0)}},
		{"OPEN that is malformed", []func(*hostile){send(1, raw{wire.FrameOpen, []byte{1, 2}})}},
		{"OPEN of an unknown kind", []func(*hostile){send(1, wire.Open{Kind: 9})}},
		{"DATA beyond the limit", []func(*hostile){open(1), send(1, wire.Data{Epoch: 1, Data: make([]byte, wire.MaxData)}, wire.Data{Epoch: 1, Offset: wire.MaxData, Data: make([]byte, 21)})}},
		{"DATA with a gap", []func(*hostile){open(1), send(1, wire.Data{Epoch: 1, Offset: 1, Data: []byte("x")})}},
		{"DATA twice", []func(*hostile){open(1), send(1, wire.Data{Epoch: 1, Data: []byte("x")}, wire.Data{Epoch: 1, Data: []byte("x")})}},
		{"DATA after FIN", []func(*hostile){open(1), send(1, wire.Fin{Epoch: 1}, wire.Data{Epoch: 1, Data: []byte("x")})}},
		{"DATA of no bytes", []func(*hostile){open(1), send(1, wire.Data{Epoch: 1})}},
		{"ACK of what was never sent", []func(*hostile){open(1), send(1, wire.Ack{Epoch: 1, Acked: 1 << 19, Limit: 1 << 20})}},
		{"ACK whose limit overflows", []func(*hostile){open(1), send(1, wire.Ack{Epoch: 1, Limit: 1<<64 - 1})}},
		{"ACK whose limit falls", []func(*hostile){open(1), send(1, wire.Ack{Epoch: 1, Limit: 0})}},
		{"DATAGRAM for a stream", []func(*hostile){open(1), send(1, wire.Datagram{Data: []byte("x")})}},
		{"DATA for a flow", []func(*hostile){send(1, wire.Open{Kind: wire.OpenFlow}), send(1, wire.Data{Epoch: 1, Data: []byte("x")})}},
		{"DATAGRAM that is too long", []func(*hostile){send(1, wire.Open{Kind: wire.OpenFlow}), send(1, wire.Datagram{Data: make([]byte, wire.MaxDatagram+1)})}},
		{"RESET that is malformed", []func(*hostile){open(1), send(1, raw{wire.FrameReset, []byte{1}})}},
		{"CARRIER for a stream", []func(*hostile){send(1, wire.AddCarrier{Connection: 1, Kind: wire.CarrierTCP})}},
		{"CLOSE for a stream", []func(*hostile){send(1, wire.TunnelClose{})}},
	} {
		h := newHostile(t, dialsForEver, nil)
		for _, step := range test.steps {
			step(h)
		}
		h.wantClosed(test.name)
	}
}

// Frames that the carrier itself takes are its own to refuse: it dies.
func TestBrokenCarrierFramesEndTheCarrier(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame []byte
	}{
		{"HELLO twice", wire.AppendFrame(nil, 0, wire.TunnelHello{Version: 1})},
		{"PING that is cut", wire.AppendFrame(nil, 0, raw{wire.FramePing, []byte{1}})},
		{"PING for a stream", wire.AppendFrame(nil, 1, wire.TunnelPing{})},
		{"PONG that is too long", wire.AppendFrame(nil, 0, raw{wire.FramePong, make([]byte, 9)})},
		{"a body above the limit", []byte{byte(wire.FrameData), 0xff, 0xff, 0xff, 0, 0, 0, 1}},
	} {
		h := newHostile(t, refuseAll, func(c *Config) { c.Linger = time.Millisecond })
		h.Send(test.frame)
		err := <-h.ended
		wantEnd(t, err, EndError{Reason: wire.ReasonCarrierLost})
		if err != nil && !strings.Contains(err.Error(), "malformed") && !strings.Contains(err.Error(), "HELLO") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestUnknownFrameTypesAreSkipped(t *testing.T) {
	h := newHostile(t, make(targets, 1), nil)
	h.send(0, raw{200, []byte("what is this")}, raw{0, make([]byte, wire.MaxFrame)})
	h.send(1, streamOpen)
	h.want(1, wire.FrameAck)
}

func TestStrayFramesAreCountedAndCloseTheTunnelWhenMany(t *testing.T) {
	h := newHostile(t, refuseAll, nil)
	for i := range maxStray - 1 {
		h.send(uint32(i), wire.Data{Epoch: 1, Data: []byte("x")})
	}
	h.send(1, streamOpen)
	h.want(1, wire.FrameReset)
	if got := h.tunnel.Stats().Stray; got != maxStray-1 {
		t.Errorf("stray: %d, want %d", got, maxStray-1)
	}
	h.send(9, wire.Ack{Epoch: 1, Limit: 1})
	h.wantClosed("the last straw")
}

// A stream that was reset here still gets what the peer had sent before it
// knew. That is no offence.
func TestWhatWasUnderWayAtAResetIsNoOffence(t *testing.T) {
	h := newHostile(t, refuseAll, nil)
	h.send(1, streamOpen)
	h.want(1, wire.FrameReset)
	for i := range uint64(10 * maxStray) {
		h.send(1, wire.Data{Epoch: 1, Offset: i, Data: []byte("x")})
	}
	h.send(1, wire.Fin{Epoch: 1, Offset: 10 * maxStray}, wire.Reset{})
	h.send(3, streamOpen)
	h.want(3, wire.FrameReset)
	if s := h.tunnel.Stats(); s.Stray != 0 || s.Streams != 1 {
		t.Errorf("stray %d, streams %d; want 0, 1", s.Stray, s.Streams)
	}
}

// Whatever bit a relay flips, the application never gets a wrong byte: it gets
// a right prefix and a reset.
func TestFlippedBitsNeverReachTheApplication(t *testing.T) {
	data := random(20000)
	const step = 671 // odd, so that every kind of byte of a record is met
	for offset := 0; offset < 22000; offset += step {
		a, b := carriertest.TCP(t)
		x, y := carriertest.TCP(t)
		var relaying sync.WaitGroup
		relaying.Go(func() { io.Copy(struct{ io.Writer }{a}, x); a.CloseWrite() })
		relaying.Go(func() { copyFlipped(x, a, offset); x.CloseWrite() })
		exit := make(targets, 1)
		p := newBarePair(t, exit, func() (net.Conn, net.Conn) { return b, y }, breaksForGood)
		r, err := p.road(context.Background(), 0)
		if err != nil { // in the handshake
			a.Close()
			x.Close()
			relaying.Wait()
			p.stop()
			continue
		}
		p.attach(r)
		app, other := carriertest.TCP(t)
		done := openWith(p.client, benchGrant, other)
		go func() {
			app.Write(data)
			app.CloseWrite()
		}()
		var got []byte
		select {
		case target := <-exit:
			got, err = io.ReadAll(target)
			target.Close()
		case <-p.server.Done():
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("bit flipped at %d: wrong bytes arrived", offset)
		}
		if err == nil && len(got) == len(data) {
			t.Errorf("bit flipped at %d: nothing happened", offset)
		}
		if err == nil && len(got) > 0 {
			t.Errorf("bit flipped at %d: %d bytes of %d ended cleanly", offset, len(got), len(data))
		}
		if o := <-done; o.err == nil {
			t.Errorf("bit flipped at %d: the stream ended well", offset)
		}
		app.Close()
		a.Close()
		x.Close()
		relaying.Wait()
		p.stop()
	}
}

// breaksForGood leaves a tunnel no time to find another carrier.
func breaksForGood(client, server *Config) {
	alone(client, server)
	client.Linger, server.Linger = time.Millisecond, time.Millisecond
}

// A relay that ends both legs in mid-stream must not pass for an application
// that has finished.
func TestTruncatedStreamIsNoCleanEnd(t *testing.T) {
	data := random(2 << 20)
	a, b := carriertest.TCP(t)
	x, y := carriertest.TCP(t)
	var relaying sync.WaitGroup
	relaying.Go(func() { io.Copy(struct{ io.Writer }{a}, x) })
	relaying.Go(func() {
		io.CopyN(x, a, 1<<20)
		// Cleanly, as far as TCP goes.
		x.CloseWrite()
		a.CloseWrite()
	})
	exit := make(targets, 1)
	p := newPairOver(t, exit, func() (net.Conn, net.Conn) { return b, y }, breaksForGood)
	app, other := carriertest.TCP(t)
	done := openWith(p.client, benchGrant, other)
	go func() {
		app.Write(data)
		app.CloseWrite()
	}()
	target := <-exit
	got, err := io.ReadAll(target)
	if err == nil {
		t.Errorf("the target saw a clean end after %d bytes of %d", len(got), len(data))
	}
	if len(got) == 0 || !bytes.HasPrefix(data, got) {
		t.Errorf("the target got %d bytes, the right ones: %v", len(got), bytes.HasPrefix(data, got))
	}
	wantEnd(t, (<-done).err, EndError{Reason: wire.ReasonCarrierLost})
	wantEnd(t, <-p.serverErr, EndError{Reason: wire.ReasonCarrierLost})
	target.Close()
	app.Close()
	a.Close()
	x.Close()
	relaying.Wait()
}

// copyFlipped copies and flips one bit of the byte at offset.
func copyFlipped(dst io.Writer, src io.Reader, offset int) {
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := src.Read(buf)
		if i := offset - at; i >= 0 && i < n {
			buf[i] ^= 1 << (offset % 8)
		}
		at += n
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// One side asks for the end just when the other opens a stream: nothing is
// lost. Between its question and the peer's answer the asking side opens
// nothing, for the peer may be gone when it arrives.
func TestStreamThatCrossesTheQuestionForTheEndLives(t *testing.T) {
	h := newHostile(t, make(targets, 1), nil)
	h.tunnel.askIdle()
	if m, err := wire.ParseTunnelClose(h.want(0, wire.FrameClose)); err != nil || m.Reason != wire.ReasonIdle {
		t.Fatalf("question: %v, %v", m.Reason, err)
	}
	app, other := carriertest.TCP(t)
	defer app.Close()
	defer other.Close()
	if o := <-openWith(h.tunnel, benchGrant, other); !errors.Is(o.err, ErrClosed) {
		t.Errorf("opening after the question: %v", o.err)
	}
	h.send(1, streamOpen)
	h.want(1, wire.FrameAck)
	openWith(h.tunnel, benchGrant, other)
	h.want(2, wire.FrameOpen)
}

func TestQuestionForTheEndIsNotAnsweredWhileAStreamIsOpen(t *testing.T) {
	h := newHostile(t, make(targets, 2), nil)
	h.send(1, streamOpen)
	h.want(1, wire.FrameAck)
	h.send(0, wire.TunnelClose{Reason: wire.ReasonIdle})
	h.send(3, streamOpen)
	h.want(3, wire.FrameAck)
}
