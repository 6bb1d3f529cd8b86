package splice

import (
	"io"
	"net"
	"testing"
)

// BenchmarkTransfer sends 1 GiB from one end to the other: directly over
// loopback, and through the relay. Compare within one run.
func BenchmarkTransfer(b *testing.B) {
	const total = 1 << 30
	transfer := func(b *testing.B, from, to net.Conn) {
		go func() {
			block := make([]byte, 256<<10)
			for range total / len(block) {
				if _, err := from.Write(block); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		// io.CopyN to io.Discard reads by 8 KiB; a portal reads by more.
		buf := make([]byte, 256<<10)
		for got := 0; got < total; {
			n, err := to.Read(buf)
			got += n
			if err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		from, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer from.Close()
		to, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer to.Close()
		b.SetBytes(total)
		for b.Loop() {
			transfer(b, from, to)
		}
	})
	b.Run("relay", func(b *testing.B) {
		g := newRig(b, nil)
		from, to := g.session().join(0)
		b.SetBytes(total)
		for b.Loop() {
			transfer(b, from, to)
		}
	})
}

// BenchmarkPingPong sends one byte there and back. The difference of the two
// is what the relay's two hops cost.
func BenchmarkPingPong(b *testing.B) {
	pingPong := func(b *testing.B, from, to net.Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{to})
		}()
		buf := make([]byte, 1)
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := from.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
		from.Close()
		<-done
	}
	b.Run("direct", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		from, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		to, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer to.Close()
		pingPong(b, from, to)
	})
	b.Run("relay", func(b *testing.B) {
		from, to := newRig(b, nil).session().join(0)
		pingPong(b, from, to)
	})
}
