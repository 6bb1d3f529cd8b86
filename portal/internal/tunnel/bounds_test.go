package tunnel

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// Each further carrier costs this portal a dial, whether it comes to be or not.
func TestCarriersThatThePeerAsksForAreBounded(t *testing.T) {
	h := newHostile(t, refuseAll, func(c *Config) {
		c.More = func(ctx context.Context, _ wire.SessionID, _ uint16, _ wire.CarrierKind) (carrier.Conn, Way, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}
	})
	for i := range uint16(2*maxCarriers + 1) {
		h.send(0, wire.AddCarrier{Connection: i + 1, Kind: wire.CarrierTCP})
	}
	h.wantClosed("too many carriers at once")
	h = newHostile(t, refuseAll, func(c *Config) {
		c.More = func(_ context.Context, _ wire.SessionID, n uint16, _ wire.CarrierKind) (carrier.Conn, Way, error) {
			return nil, nil, fmt.Errorf("%w: number %d was used", wire.ErrMalformed, n)
		}
	})
	h.send(0, wire.AddCarrier{Connection: 1, Kind: wire.CarrierTCP})
	h.wantClosed("a number that may not be")
}

// A peer that never answers a RESET cannot make the portal remember for ever.
func TestRefusedStreamsAreBounded(t *testing.T) {
	h := newHostile(t, refuseAll, nil)
	for i := range uint32(2*maxStreams + 1) {
		h.send(2*i+1, streamOpen)
		if i%1000 == 999 {
			h.want(2*i+1, wire.FrameReset)
		}
	}
	h.wantClosed("too many refused streams")
}

func TestDialsUnderWayAreBounded(t *testing.T) {
	entered := make(chan struct{}, 2*maxPending)
	var slow handler = func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	h := newHostile(t, slow, nil)
	for i := range uint32(maxPending + 1) {
		h.send(2*i+1, streamOpen)
	}
	m, err := wire.ParseReset(h.want(2*maxPending+1, wire.FrameReset))
	if err != nil || m.Reason != wire.ReasonBusy {
		t.Errorf("one dial too many: %v %q, %v; want busy", m.Reason, m.Text, err)
	}
	for range maxPending {
		<-entered
	}
}

// While little memory is left, nothing new is taken, and what is there stays.
func TestFullBudgetRefusesStreams(t *testing.T) {
	const streams = 16
	h := newHostile(t, make(targets, 100), func(c *Config) { c.Budget = NewBudget(2 * streams * wire.FirstLimit) })
	busy := 0
	for i := range uint32(4 * streams) {
		h.send(2*i+1, streamOpen)
	}
	answered := make(map[uint32]bool)
	for len(answered) < 4*streams {
		f := <-h.frames
		switch f.typ {
		case wire.FrameReset:
			if m, err := wire.ParseReset(f.body); err != nil || m.Reason != wire.ReasonBusy {
				t.Errorf("stream %d was reset: %v %q, %v", f.stream, m.Reason, m.Text, err)
			}
			busy++
		case wire.FrameAck:
		default:
			continue
		}
		answered[f.stream] = true
	}
	if busy == 0 || busy == 4*streams {
		t.Errorf("%d of %d streams were refused", busy, 4*streams)
	}
	if used, limit := h.tunnel.budget.Used(), int64(streams*wire.FirstLimit); used > limit+limit/2 {
		t.Errorf("%d bytes are promised, the tunnel's limit is %d", used, limit)
	}
}

// Neither a PING flood nor any other question may pile up answers in memory
// when the peer does not read them.
func TestPeerThatAsksButDoesNotReadIsDropped(t *testing.T) {
	ended := make(chan error, 1)
	tun := New(Config{
		Handler: refuseAll, Log: slog.New(slog.DiscardHandler),
		Left: func(_ wire.SessionID, err error) { ended <- err },
	})
	m := newMeet(t, func() (net.Conn, net.Conn) {
		a, b := carriertest.TCP(t)
		a.SetReadBuffer(4096)
		b.SetWriteBuffer(4096)
		return a, b
	})
	ctx, cancel := context.WithCancel(context.Background())
	block := make(chan struct{})
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer close(block)
	running.Go(func() { tun.Run(ctx) })
	r, err := m.road(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := tun.Attach(r.server, theWay{}); err != nil {
		t.Fatal(err)
	}
	c := r.client
	running.Go(func() { c.Run(ctx, blocked(block)) })
	// The answer to this makes the hostile side stop reading.
	c.Send(wire.AppendFrame(nil, 1, streamOpen))
	ping := wire.AppendFrame(nil, 0, wire.TunnelPing{})
	for {
		select {
		case err := <-ended:
			if !strings.Contains(fmt.Sprint(err), "does not read") {
				t.Errorf("the carrier ended: %v", err)
			}
			return
		default:
			// As fast as the carrier takes it, yet never too much at once.
			src := &repeat{frame: bytes.Repeat(ping, 200)}
			c.Lane(3, src).Write()
		}
	}
}

// blocked is a Handler that does not read on.
type blocked chan struct{}

// Hello implements carrier.Handler.
func (b blocked) Hello(wire.TunnelHello) error { return nil }

// Silent implements carrier.Handler.
func (b blocked) Silent(bool) {}

// Frame implements carrier.Handler.
func (b blocked) Frame(wire.FrameHeader, []byte) error {
	<-b
	return nil
}

// repeat is a Source of one frame.
type repeat struct{ frame []byte }

func (r *repeat) Urgent(b []byte) []byte { return b }
func (r *repeat) Wrote()                 {}
func (r *repeat) Next() ([]byte, bool) {
	f := r.frame
	r.frame = nil
	return f, false
}
