//go:build unix

package carrier_test

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

const pumpLen = 256 << 10

// BenchmarkBareQUIC is what the QUIC carrier is measured against: writes and
// reads of 256 KiB, a QUIC stream per stream, and nothing else.
func BenchmarkBareQUIC(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(name(streams), func(b *testing.B) {
			cc, sc := carriertest.TLS(b)
			client, server := carriertest.QUIC(b, cc, sc)
			defer client.CloseWithError(0, "")
			pump(b, streams, func(n int, _ uint32, arrived func(int)) {
				out, err := client.OpenStream()
				if err != nil {
					b.Error(err)
					return
				}
				buf := make([]byte, pumpLen)
				out.Write(buf[:1])
				in, err := server.AcceptStream(context.Background())
				if err != nil {
					b.Error(err)
					return
				}
				var reading sync.WaitGroup
				defer reading.Wait()
				reading.Go(func() {
					buf := make([]byte, pumpLen)
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
}

// BenchmarkCarrier moves DATA frames of full size from Sources to a Handler.
func BenchmarkCarrier(b *testing.B) {
	for _, kind := range carriertest.Kinds {
		for _, streams := range []int{1, 8} {
			b.Run(kind.String()+"/"+name(streams), func(b *testing.B) {
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
				pump(b, streams, func(n int, number uint32, count func(int)) {
					arrived.CompareAndSwap(nil, &count)
					s := &endless{number: number, left: n * pumpLen, done: make(chan struct{}), turn: client.Turn}
					s.lane = client.Lane(number, s)
					s.lane.Ready()
					<-s.done
				})
			})
		}
	}
}

func name(n int) string { return string(rune('0' + n)) }

// pump has several goroutines send b.N buffers of pumpLen in all.
func pump(b *testing.B, streams int, send func(n int, number uint32, arrived func(int))) {
	n := max(b.N/streams, 1)
	var left atomic.Int64
	left.Store(int64(n * streams * pumpLen))
	all := make(chan struct{})
	var once sync.Once
	arrived := func(m int) {
		if left.Add(int64(-m)) <= 0 {
			once.Do(func() { close(all) })
		}
	}
	b.SetBytes(pumpLen)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var running sync.WaitGroup
	for i := range streams {
		running.Go(func() { send(n, uint32(2*i+1), arrived) })
	}
	running.Wait()
	<-all
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpuTime is what this process has used. On a machine that others use it says
// more than the time that passed.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
