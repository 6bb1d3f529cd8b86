package tunnel

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// FuzzFrames hands a tunnel whatever frames a proven peer could send. It never
// panics, and what it holds and has promised stays within what it has granted;
// when it is over, nothing is left.
func FuzzFrames(f *testing.F) {
	cc, sc := carriertest.TLS(f)
	f.Add([]byte{4, 1, 0, 5, 1, 9, 5, 1, 9, 7, 1, 0})
	f.Add([]byte{4, 1, 1, 10, 1, 3, 8, 1, 0, 4, 3, 0, 6, 3, 2, 8, 3, 0})
	f.Add([]byte{4, 1, 0, 9, 1, 0, 5, 1, 16, 9, 1, 16, 9, 3, 0, 4, 3, 0, 6, 3, 0})
	f.Add([]byte{11, 0, 1, 12, 0, 9, 200, 1, 1, 0x85, 1, 3, 1, 2, 3})
	f.Add([]byte{14, 0, 2, 14, 0, 1, 14, 0, 3, 14, 1, 4, 0x8e, 0, 9, 0, 0, 0, 9, 0, 1, 0x11, 4, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		a, b := net.Pipe()
		var running sync.WaitGroup
		defer running.Wait()
		running.Go(func() {
			// The peer reads and says nothing more than its handshake.
			c := tls.Client(a, cc)
			io.Copy(io.Discard, c)
			c.Close()
		})
		conn, err := carrier.OverTCP(context.Background(), b, carrier.Config{Session: wire.NewSessionID(), TLS: sc})
		if err != nil {
			t.Fatal(err)
		}
		var exit handler = func(context.Context, wire.Open) (net.Conn, error) {
			x, y := net.Pipe()
			running.Go(func() { io.Copy(y, y); y.Close() })
			return x, nil
		}
		tun := New(Config{Handler: exit, Budget: NewBudget(1 << 30), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(context.Background())
		l := &link{t: tun, conn: conn, way: theWay{}}
		tun.links = []*link{l}
		running.Go(func() { conn.Run(ctx, feed{}) })

		opens := int64(0)
		for len(script) >= 3 {
			var frame []byte
			frame, script = fromScript(script)
			h, err := wire.ParseFrameHeader(frame)
			if err != nil {
				t.Fatal(err)
			}
			if h.Type == wire.FrameOpen {
				opens++
			}
			if err := l.Frame(h, frame[wire.FrameHeaderLen:]); err != nil {
				break
			}
			// A stream's window is not above 16 MiB, whatever was measured.
			if used := tun.budget.Used(); used < 0 || used > opens*(2*16<<20) {
				t.Fatalf("%d bytes are held after %d OPENs", used, opens)
			}
		}
		tun.finish(nil, &EndError{Reason: wire.ReasonShutdown})
		tun.cancel()
		cancel()
		a.Close()
		tun.acks.stop()
		tun.tasks.Wait()
		if used := tun.budget.Used(); used != 0 || len(tun.ends) != 0 {
			t.Fatalf("after the end %d bytes are held, %d streams are known", used, len(tun.ends))
		}
	})
}

// feed is the Handler of a carrier whose frames come from the script.
type feed struct{}

func (feed) Hello(wire.TunnelHello) error         { return nil }
func (feed) Silent(bool)                          {}
func (feed) Frame(wire.FrameHeader, []byte) error { return nil }

// fromScript makes one frame of the first bytes of a script: a well-formed one
// with numbers from the script, or, with the top bit of the type set, a body of
// any bytes.
func fromScript(b []byte) (frame, rest []byte) {
	typ, stream, n := wire.FrameType(b[0]), uint32(b[1]), uint64(b[2])
	b = b[3:]
	if typ&0x80 != 0 {
		body := b[:min(n, uint64(len(b)))]
		return wire.AppendFrame(nil, stream, raw{typ & 0x7f, body}), b[len(body):]
	}
	var f wire.Frame
	switch typ % 15 {
	case wire.FrameOpen:
		f = wire.Open{Kind: wire.OpenStream, Limit: n << 8}
		if n%4 == 1 {
			f = wire.Open{Kind: wire.OpenFlow, Data: make([]byte, n)}
		}
		if n%4 == 2 {
			f = wire.Open{Kind: wire.OpenProbe}
		}
	case wire.FrameData:
		f = wire.Data{Epoch: 1 + uint32(n&16)>>4, Offset: n &^ 31, Data: make([]byte, n%16+1)}
	case wire.FrameAck:
		f = wire.Ack{Epoch: 1, Acked: n, Limit: n << 8}
	case wire.FrameFin:
		f = wire.Fin{Epoch: 1, Offset: n}
	case wire.FrameResume:
		f = wire.Resume{Epoch: 2 + uint32(n>>4), Received: n & 15}
	case wire.FrameDatagram:
		f = wire.Datagram{Data: make([]byte, n)}
	case wire.FrameCarrier:
		f = wire.AddCarrier{Connection: uint16(n), Kind: wire.CarrierTCP}
	case wire.FrameCandidates:
		f = wire.Candidates{Number: uint32(n)}
	case wire.FrameClose:
		f = wire.TunnelClose{Reason: wire.Reason(n)}
	default:
		f = wire.Reset{Reason: wire.Reason(n)}
	}
	return wire.AppendFrame(nil, stream, f), b
}
