//go:build unix

package carrier_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// BenchmarkBareQUIC is what the QUIC carrier is measured against: writes and
// reads of 256 KiB, a QUIC stream per stream, and nothing else.
func BenchmarkBareQUIC(b *testing.B) {
	carriertest.OneAndEight(b, func(b *testing.B, streams int) {
		cc, sc := carriertest.TLS(b)
		client, server := carriertest.QUIC(b, cc, sc)
		defer client.CloseWithError(0, "")
		carriertest.Pump(b, streams, func(n int, _ uint32, arrived func(int)) {
			out, err := client.OpenStream()
			if err != nil {
				b.Error(err)
				return
			}
			buf := make([]byte, carriertest.PumpLen)
			out.Write(buf[:1])
			in, err := server.AcceptStream(context.Background())
			if err != nil {
				b.Error(err)
				return
			}
			var reading sync.WaitGroup
			defer reading.Wait()
			reading.Go(func() {
				buf := make([]byte, carriertest.PumpLen)
				for {
					m, err := in.Read(buf)
					arrived(m)
					if err != nil {
						return
					}
				}
			})
			for range n {
				out.Write(buf)
			}
			out.Close()
		})
	})
}

// BenchmarkCarrier moves DATA frames of full size from Sources to a Handler.
func BenchmarkCarrier(b *testing.B) {
	for _, kind := range carriertest.Kinds {
		b.Run(kind.String(), func(b *testing.B) {
			carriertest.OneAndEight(b, func(b *testing.B, streams int) {
				client, server := carriertest.Pair(b, kind)
				var arrived atomic.Pointer[func(int)]
				ctx, cancel := context.WithCancel(context.Background())
				var running sync.WaitGroup
				defer running.Wait()
				defer cancel()
				client.SendHello(wire.TunnelHello{})
				server.SendHello(wire.TunnelHello{})
				running.Go(func() { client.Run(ctx, sink(nil)) })
				running.Go(func() { server.Run(ctx, counter{f: &arrived}) })
				carriertest.Pump(b, streams, func(n int, number uint32, count func(int)) {
					arrived.CompareAndSwap(nil, &count)
					s := &endless{number: number, left: n * carriertest.PumpLen, done: make(chan struct{}), turn: client.Turn}
					s.lane = client.Lane(number, s)
					s.lane.Ready()
					<-s.done
				})
			})
		})
	}
}

// endless is a Source of DATA frames.
type endless struct {
	lane   carrier.Lane
	number uint32
	turn   func() int
	left   int
	done   chan struct{}
	open   bool
	frame  []byte
}

func (s *endless) Urgent(b []byte) []byte { return b }
func (s *endless) Wrote()                 {}

func (s *endless) Next() ([]byte, bool) {
	if !s.open {
		s.open = true
		return wire.AppendFrame(nil, s.number, wire.Open{Kind: wire.OpenStream}), true
	}
	n := min(s.left, s.turn())
	if n == 0 {
		return nil, false
	}
	s.left -= n
	if s.left == 0 {
		close(s.done)
	}
	if len(s.frame) != n+wire.DataOverhead {
		s.frame = wire.AppendFrame(s.frame[:0], s.number, wire.Data{Epoch: 1, Data: make([]byte, n)})
	}
	return s.frame, s.left > 0
}

// counter is a Handler that counts the application's bytes in DATA frames.
type counter struct {
	sink
	f *atomic.Pointer[func(int)]
}

func (c counter) Frame(h wire.FrameHeader, body []byte) error {
	if h.Type == wire.FrameData {
		(*c.f.Load())(h.Length - 12)
	}
	return nil
}
