//go:build unix

package tunnel

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

var benchGrant = wire.GrantID{1}

// dialTo is a Handler that dials one address, whatever the grant.
func dialTo(addr net.Addr) handler {
	return func(ctx context.Context, _ wire.Open) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

// service accepts connections and serves each with serve.
func service(t testing.TB, serve func(c *net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr()
}

// entry listens and opens a stream for each connection.
func entry(t testing.TB, tun *Tunnel) net.Addr {
	return service(t, func(c *net.TCPConn) {
		_, _ = tun.OpenStream(context.Background(), benchGrant, []byte("grant"), netip.AddrPort{}, c)
	})
}

func dial(t testing.TB, addr net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

const pumpLen = 256 << 10

// BenchmarkBareTLS is what the tunnel is measured against: writes and reads of
// 256 KiB through crypto/tls, a connection per stream, and no applications.
func BenchmarkBareTLS(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(count(streams), func(b *testing.B) {
			cc, sc := carriertest.TLS(b)
			each(b, streams, func(n int, done func(int)) {
				x, y := carriertest.TCP(b)
				s := tls.Server(y, sc)
				go func() {
					defer s.Close()
					buf := make([]byte, pumpLen)
					for {
						m, err := s.Read(buf)
						done(m)
						if err != nil {
							return
						}
					}
				}()
				c := tls.Client(x, cc)
				buf := make([]byte, pumpLen)
				for range n {
					if _, err := c.Write(buf); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkStream carries from an application's socket to another's through a
// tunnel.
func BenchmarkStream(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(count(streams), func(b *testing.B) {
			var done func(int)
			target := service(b, func(c *net.TCPConn) {
				buf := make([]byte, pumpLen)
				for {
					m, err := c.Read(buf)
					done(m)
					if err != nil {
						return
					}
				}
			})
			p := newPair(b, dialTo(target), nil)
			at := entry(b, p.client)
			each(b, streams, func(n int, d func(int)) {
				done = d
				c := dial(b, at)
				defer c.Close()
				buf := make([]byte, pumpLen)
				for range n {
					if _, err := c.Write(buf); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// each runs a pump in several goroutines, b.N buffers of pumpLen in all, until
// done was told of all their bytes.
func each(b *testing.B, streams int, pump func(n int, done func(int))) {
	var mu sync.Mutex
	n := max(b.N/streams, 1)
	left := n * streams * pumpLen
	all := make(chan struct{})
	done := func(m int) {
		mu.Lock()
		defer mu.Unlock()
		if left -= m; left <= 0 && m > 0 {
			close(all)
		}
	}
	b.SetBytes(pumpLen)
	b.ResetTimer()
	before := cpuTime(b)
	var running sync.WaitGroup
	for range streams {
		running.Go(func() { pump(n, done) })
	}
	running.Wait()
	<-all
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpuTime is what this process has used, all goroutines and applications
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

func count(n int) string {
	if n == 1 {
		return "1"
	}
	return "8"
}

func echo(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, c) }

// BenchmarkPingPong sends one byte there and back.
func BenchmarkPingPong(b *testing.B) {
	p := newPair(b, dialTo(service(b, echo)), nil)
	c := dial(b, entry(b, p.client))
	defer c.Close()
	var buf [1]byte
	for b.Loop() {
		if _, err := c.Write(buf[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf[:]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens streams, 8 at a time, with 4 bytes each way.
func BenchmarkOpen(b *testing.B) {
	p := newPair(b, dialTo(service(b, echo)), nil)
	at := entry(b, p.client)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				b.Error(err)
				return
			}
			var buf [4]byte
			if _, err := c.Write(buf[:]); err != nil {
				b.Error(err)
			}
			if _, err := io.ReadFull(c, buf[:]); err != nil {
				b.Error(err)
			}
			c.Close()
		}
	})
}
