package udp

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkForward carries packets of 128 bytes of one flow over loopback, 32 on
// their way at a time, through sockets at one address and through sockets at
// all of the machine's. An op is a packet; cpu-ns is what the whole process
// spent on it, sender and receiver included. Compare within one run.
func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name   string
		listen []netip.Addr
	}{{"one-address", []netip.Addr{loopback}}, {"all-addresses", nil}} {
		b.Run(c.name, func(b *testing.B) {
			g := tunedRig(b, func(cfg *Config) { cfg.Listen = c.listen })
			m := g.session()
			from, to := m.both(0, m.at)
			packet, buf := noise(128), make([]byte, 256)
			start := spent(b)
			for i := range b.N {
				from.send(packet)
				if i%32 == 31 || i == b.N-1 {
					for range i%32 + 1 {
						if _, _, err := to.ReadFromUDPAddrPort(buf); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			b.ReportMetric(float64(spent(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// spent returns the nanoseconds of processor time that the process has used.
func spent(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
