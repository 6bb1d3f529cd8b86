//go:build unix

package tunnel

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
)

// BenchmarkBareTLS is what the tunnel is measured against: writes and reads of
// 256 KiB through crypto/tls, a connection per stream, and no applications.
func BenchmarkBareTLS(b *testing.B) {
	carriertest.OneAndEight(b, func(b *testing.B, streams int) {
		cc, sc := carriertest.TLS(b)
		carriertest.Pump(b, streams, func(n int, _ uint32, done func(int)) {
			x, y := carriertest.TCP(b)
			s := tls.Server(y, sc)
			go func() {
				defer s.Close()
				buf := make([]byte, carriertest.PumpLen)
				for {
					m, err := s.Read(buf)
					done(m)
					if err != nil {
						return
					}
				}
			}()
			c := tls.Client(x, cc)
			buf := make([]byte, carriertest.PumpLen)
			for range n {
				if _, err := c.Write(buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkPlainForwarder is the least that a forwarder can be: an
// application's socket, a TLS connection of its own with 256 KiB a call, and
// another application's socket. Between it and BenchmarkBareTLS lies what the
// applications' two connections cost; the tunnel cannot do without them.
func BenchmarkPlainForwarder(b *testing.B) {
	carriertest.OneAndEight(b, func(b *testing.B, streams int) {
		cc, sc := carriertest.TLS(b)
		var done func(int)
		target := sinkTo(b, &done)
		at := service(b, func(c *net.TCPConn) {
			x, y, err := carriertest.Loopback()
			if err != nil {
				b.Error(err)
				return
			}
			var exit sync.WaitGroup
			defer exit.Wait()
			exit.Go(func() {
				s := tls.Server(y, sc)
				defer s.Close()
				out := dial(b, target)
				defer out.Close()
				shovel(out, s)
			})
			t := tls.Client(x, cc)
			defer t.Close()
			shovel(t, c)
		})
		carriertest.Pump(b, streams, func(n int, _ uint32, d func(int)) {
			done = d
			send(b, at, n)
		})
	})
}

// shovel copies with buffers of carriertest.PumpLen and without the kernel's help.
func shovel(to, from net.Conn) {
	buf := make([]byte, carriertest.PumpLen)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// sinkTo is a service that reads and tells done how much.
func sinkTo(b *testing.B, done *func(int)) net.Addr {
	return service(b, func(c *net.TCPConn) {
		buf := make([]byte, carriertest.PumpLen)
		for {
			m, err := c.Read(buf)
			(*done)(m)
			if err != nil {
				return
			}
		}
	})
}

// send writes n buffers of carriertest.PumpLen as an application.
func send(b *testing.B, at net.Addr, n int) {
	c := dial(b, at)
	defer c.Close()
	buf := make([]byte, carriertest.PumpLen)
	for range n {
		if _, err := c.Write(buf); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkStream carries from an application's socket to another's through a
// tunnel.
func BenchmarkStream(b *testing.B) {
	carriertest.OneAndEight(b, func(b *testing.B, streams int) {
		var done func(int)
		target := sinkTo(b, &done)
		p := newPair(b, dialTo(target), nil)
		at := entry(b, p.client)
		carriertest.Pump(b, streams, func(n int, _ uint32, d func(int)) {
			done = d
			send(b, at, n)
		})
	})
}

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
