package tunnel

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// What a peer may say about moves, and what it may not.

func TestBrokenMovesCloseTheTunnel(t *testing.T) {
	resume := func(epoch uint32, received uint64) wire.Frame { return wire.Resume{Epoch: epoch, Received: received} }
	for _, test := range []struct {
		name string
		do   func(h *hostile, second carrier.Conn)
		want string
	}{
		{"RESUME with more than was sent", func(h *hostile, second carrier.Conn) { sendOn(second, 1, resume(2, 6)) }, "only 5 were sent"},
		{"RESUME below what was acknowledged", func(h *hostile, second carrier.Conn) {
			h.send(1, wire.Ack{Epoch: 1, Acked: 5, Limit: 1 << 20})
			h.send(1, resume(2, 4))
		}, "went back"},
		{"RESUME in the middle of a frame", func(h *hostile, second carrier.Conn) { sendOn(second, 1, resume(2, 2)) }, "middle"},
		{"RESUME of an epoch twice", func(h *hostile, second carrier.Conn) { sendOn(second, 1, resume(2, 5), resume(2, 5)) }, "twice"},
		{"RESUME that is malformed", func(h *hostile, second carrier.Conn) { sendOn(second, 1, raw{wire.FrameResume, []byte{1}}) }, "malformed"},
		{"RESUME of the first epoch", func(h *hostile, second carrier.Conn) { sendOn(second, 1, resume(1, 0)) }, "malformed"},
		{"RESUME for a stream of this side, not asked for", func(h *hostile, second carrier.Conn) {
			app, other := carriertest.TCP(h.t)
			h.t.Cleanup(func() { app.Close() })
			openWith(h.tunnel, benchGrant, other)
			h.want(2, wire.FrameOpen)
			h.send(2, resume(2, 0))
		}, "not asked for"},
		{"RESUME for a flow", func(h *hostile, second carrier.Conn) {
			h.send(3, wire.Open{Kind: wire.OpenFlow})
			h.send(3, resume(2, 0))
		}, "malformed"},
		{"frames of an epoch to come", func(h *hostile, second carrier.Conn) { h.send(1, wire.Data{Epoch: 2, Data: []byte("x")}) }, "before its RESUME"},
		{"frames of an epoch to come elsewhere", func(h *hostile, second carrier.Conn) {
			sendOn(second, 1, wire.Data{Epoch: 2, Data: []byte("x")})
		}, "on another carrier"},
		{"RESUME again and again", func(h *hostile, second carrier.Conn) {
			for i := range uint32(2 * moveBurst) {
				sendOn(second, 1, resume(2+i, 5))
			}
		}, "too often"},
	} {
		at := make(targets, 2)
		h := newHostile(t, at, nil)
		second := h.another()
		h.send(1, streamOpen)
		target := <-at
		target.Write([]byte("hello"))
		h.want(1, wire.FrameData)
		test.do(h, second)
		if m := h.wantClosed(test.name); !strings.Contains(m.Text, test.want) {
			t.Errorf("%s: CLOSE %q, want %q in it", test.name, m.Text, test.want)
		}
		target.Close()
	}
}

// What comes late, or of a stream that is over, is nobody's fault.
func TestLateFramesAreNoOffence(t *testing.T) {
	at := make(targets, 2)
	h := newHostile(t, at, nil)
	second := h.another()
	h.send(1, streamOpen)
	target := <-at
	defer target.Close()
	h.want(1, wire.FrameAck)
	sendOn(second, 1, wire.Resume{Epoch: 7})
	if m, err := wire.ParseResume(h.wantOn(second, 1, wire.FrameResume)); err != nil || m != (wire.Resume{Epoch: 7}) {
		t.Fatalf("answer: %+v, %v", m, err)
	}
	for range 2 * maxStray {
		h.send(1, wire.Data{Epoch: 1, Offset: 0, Data: []byte("x")}, wire.Ack{Epoch: 1, Limit: 5}, wire.Fin{Epoch: 1, Offset: 99}, wire.Resume{Epoch: 5})
	}
	h.send(1, streamOpen) // nor is an OPEN that was said again
	sendOn(second, 1, wire.Reset{Reason: wire.ReasonTargetReset})
	h.wantOn(second, 1, wire.FrameReset)
	for range 2 * maxStray {
		h.send(1, wire.Data{Epoch: 1, Offset: 0, Data: []byte("x")}, wire.Fin{Epoch: 1, Offset: 99})
	}
	// A RESET whose answer was lost is answered again, and so are the other
	// questions for a stream that is over; an answer is not.
	h.send(1, wire.Reset{Reason: wire.ReasonTargetReset})
	h.want(1, wire.FrameReset)
	h.send(1, wire.Resume{Epoch: 8})
	h.want(1, wire.FrameReset)
	h.send(1, wire.Ack{Epoch: 8, Limit: 5})
	h.want(1, wire.FrameReset)
	h.send(1, wire.Reset{})
	// A stream may be reset whose OPEN was lost: that comes too late then.
	h.send(5, wire.Reset{Reason: wire.ReasonTargetReset})
	h.want(5, wire.FrameReset)
	h.send(5, streamOpen)
	h.send(3, streamOpen)
	h.want(3, wire.FrameAck)
	if s := h.tunnel.Stats(); s.Stray != 0 || s.Streams != 1 || len(at) != 1 {
		t.Errorf("%d stray frames, %d streams, %d targets; want 0, 1, 1", s.Stray, s.Streams, len(at))
	}
	(<-at).Close()
}

// The peer forgets a stream when it has said its last ACK. If that was lost,
// asking for the stream brings a RESET: a clean end, for nothing is missing.
func TestLostLastAckIsACleanEnd(t *testing.T) {
	for _, side := range []string{"exit", "opener"} {
		at := make(targets, 1)
		client := side == "opener"
		h := newHostile(t, at, func(c *Config) { c.Client = client })
		var app net.Conn
		var done chan outcome
		if client {
			var other net.Conn
			app, other = carriertest.TCP(t)
			done = openWith(h.tunnel, benchGrant, other)
			h.want(1, wire.FrameOpen)
			h.send(1, wire.Ack{Epoch: 1, Limit: 1 << 20})
		} else {
			h.send(1, streamOpen)
			app = <-at
		}
		h.send(1, wire.Data{Epoch: 1, Data: []byte("the end")}, wire.Fin{Epoch: 1, Offset: 7})
		got, err := io.ReadAll(app)
		if string(got) != "the end" || err != nil {
			t.Errorf("%s: the application read %q, %v", side, got, err)
		}
		app.Close()
		for fin, told := false, false; !fin || !told; {
			switch f := <-h.frames; f.typ {
			case wire.FrameFin:
				fin = true
			case wire.FrameAck:
				m, err := wire.ParseAck(f.body)
				told = err == nil && m.Acked == 8
			}
		}
		// Its ACK of the FIN is what gets lost.
		h.Abort(errors.New("the test breaks it"))
		second := h.another()
		if client {
			h.wantOn(second, 1, wire.FrameResume)
		} else {
			h.wantOn(second, 1, wire.FrameAck)
		}
		sendOn(second, 1, wire.Reset{})
		waitFor(t, "the stream to be forgotten", func() bool { return h.tunnel.Stats().Streams == 0 })
		if client {
			if o := <-done; o.err != nil {
				t.Errorf("the stream ended with: %v", o.err)
			}
		}
	}
}

// A peer that has forgotten a stream which is not done is a stream that was cut
// short, whatever it says.
func TestForgottenStreamIsNoCleanEndIfAnythingIsMissing(t *testing.T) {
	at := make(targets, 1)
	h := newHostile(t, at, func(c *Config) { c.Client = true })
	app, done := open(t, h.tunnel, benchGrant)
	app.Write([]byte("unheard"))
	h.want(1, wire.FrameData)
	waitFor(t, "the carrier to be proven", func() bool { return h.tunnel.Stats().Received > 0 })
	h.Abort(errors.New("the test breaks it"))
	second := h.another()
	// It never knew the stream, so both come again.
	h.wantOn(second, 1, wire.FrameOpen)
	h.wantOn(second, 1, wire.FrameResume)
	sendOn(second, 1, wire.Reset{})
	if _, err := io.ReadAll(app); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the application sees %v, want a reset", err)
	}
	wantEnd(t, (<-done).err, EndError{Peer: true, Reason: wire.ReasonCarrierLost})
}

// Only the exit may know that a carrier is silent, if it alone has something to
// say. It asks the opener for the stream on another; the opener comes.
func TestExitAsksForItsStreamOnAnotherCarrier(t *testing.T) {
	at := make(targets, 1)
	h := newHostile(t, at, nil)
	h.send(1, streamOpen)
	target := <-at
	defer target.Close()
	h.want(1, wire.FrameAck)
	h.tunnel.mu.Lock()
	first := h.tunnel.links[0]
	h.tunnel.mu.Unlock()
	first.Silent(true)
	second := h.another()
	if m, err := wire.ParseAck(h.wantOn(second, 1, wire.FrameAck)); err != nil || m.Epoch != 1 {
		t.Fatalf("the wish: %+v, %v", m, err)
	}
	sendOn(second, 1, wire.Resume{Epoch: 2})
	h.wantOn(second, 1, wire.FrameResume)
	target.Write([]byte("x"))
	h.wantOn(second, 1, wire.FrameData)
	// Nothing holds the silent carrier any more.
	waitFor(t, "the silent carrier to be given up", func() bool { return h.tunnel.Stats().Carriers == 1 })
}

// The opener follows such a wish, but not for ever, and not one that has been
// overtaken.
func TestWishesForAMoveAreBounded(t *testing.T) {
	h := newHostile(t, refuseAll, func(c *Config) { c.Client = true })
	second := h.another()
	app, _ := open(t, h.tunnel, benchGrant)
	defer app.Close()
	h.want(1, wire.FrameOpen)
	on := [2]carrier.Conn{h.Conn, second}
	h.tunnel.mu.Lock()
	if h.tunnel.links[1].streams.Load() == 1 {
		on[0], on[1] = on[1], on[0]
	}
	h.tunnel.mu.Unlock()
	sendOn(on[0], 1, wire.Ack{Epoch: 1, Limit: 1 << 20})
	sendOn(on[1], 1, wire.Ack{Epoch: 1, Limit: 1 << 20})
	m, err := wire.ParseResume(h.wantOn(on[1], 1, wire.FrameResume))
	if err != nil || m != (wire.Resume{Epoch: 2}) {
		t.Fatalf("the answer to the wish: %+v, %v", m, err)
	}
	// While that one is not answered, and when it is, older wishes mean nothing.
	sendOn(on[0], 1, wire.Ack{Epoch: 1, Limit: 1 << 20}, wire.Ack{Epoch: 2, Limit: 1 << 20})
	sendOn(on[0], 2, streamOpen)
	h.wantOn(on[0], 2, wire.FrameReset)
	sendOn(on[1], 1, wire.Resume{Epoch: 2}, wire.Ack{Epoch: 2, Limit: 1 << 20})
	h.wantOn(on[1], 1, wire.FrameAck)
	sendOn(on[0], 1, wire.Ack{Epoch: 1, Limit: 1 << 20})
	for epoch := uint32(2); ; epoch++ {
		to := on[epoch&1]
		sendOn(to, 1, wire.Ack{Epoch: epoch, Limit: 1 << 20})
		// What is refused afterwards is refused after the answer, if there is one.
		sendOn(to, 2*epoch, streamOpen)
		moved := false
		for f := range h.frames {
			if f.on != to {
				continue
			}
			if f.typ == wire.FrameClose {
				t.Fatal("the tunnel was closed")
			}
			if moved = f.typ == wire.FrameResume; moved || f.typ == wire.FrameReset && f.stream == 2*epoch {
				break
			}
		}
		if !moved {
			if epoch > 2*moveBurst {
				t.Errorf("%d wishes were followed", epoch)
			}
			return
		}
		sendOn(to, 1, wire.Resume{Epoch: epoch + 1}, wire.Ack{Epoch: epoch + 1, Limit: 1 << 20})
	}
}
