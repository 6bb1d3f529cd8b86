package metrics

import (
	"runtime"
	rt "runtime/metrics"
	"time"
)

// process adds how the process is.
func (p *Page) process(started time.Time) {
	p.Gauge("start_time_seconds", "When the daemon started, in Unix time.").Time(started)
	p.Gauge("goroutines", "Goroutines of the daemon.").Set(float64(runtime.NumGoroutine()))
	sample := []rt.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	rt.Read(sample)
	if sample[0].Value.Kind() == rt.KindUint64 && sample[1].Value.Kind() == rt.KindUint64 {
		p.Gauge("memory_bytes", "Memory that the Go runtime holds.").Set(float64(sample[0].Value.Uint64() - sample[1].Value.Uint64()))
	}
	if open, limit, ok := descriptors(); ok {
		p.Gauge("descriptors_open", "Files and sockets that the daemon has open.").Set(float64(open))
		p.Gauge("descriptors_limit", "How many files and sockets it may have open.").Set(float64(limit))
	}
}
