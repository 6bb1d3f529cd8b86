//go:build unix

package carriertest

import (
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// PumpLen is the length of a buffer that benchmarks of bulk data write, in bytes.
const PumpLen = 256 << 10

// OneAndEight runs a benchmark with one stream, and with eight at a time.
func OneAndEight(b *testing.B, benchmark func(b *testing.B, streams int)) {
	for _, streams := range []int{1, 8} {
		b.Run(strconv.Itoa(streams), func(b *testing.B) { benchmark(b, streams) })
	}
}

// Pump measures send, which it calls in a goroutine for each stream: b.N
// buffers of PumpLen in all, until arrived was told of all their bytes. The
// streams' numbers are 1, 3, 5 and so on.
func Pump(b *testing.B, streams int, send func(n int, number uint32, arrived func(bytes int))) {
	n := max(b.N/streams, 1)
	var left atomic.Int64
	left.Store(int64(n * streams * PumpLen))
	all := make(chan struct{})
	var once sync.Once
	arrived := func(bytes int) {
		if left.Add(int64(-bytes)) <= 0 {
			once.Do(func() { close(all) })
		}
	}
	b.SetBytes(PumpLen)
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

// cpuTime is what this process has used, both ends and all applications
// together. On a machine that others use it says more than the time that
// passed.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
