package exit

import (
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// BenchmarkOpen dials under a grant: what is not limited must cost
// what it did before there were limits.
func BenchmarkOpen(b *testing.B) {
	for name, terms := range map[string]grant.Terms{"plain": {}, "streams": {Streams: 100}, "rate": {Rate: 1 << 40, Month: 1 << 50}} {
		b.Run(name, func(b *testing.B) {
			w, g := benchWorld(b, terms)
			for b.Loop() {
				conn, err := w.exit.Open(b.Context(), tunnel.From{Peer: w.entry.cert}, wire.Open{Kind: wire.OpenProbe, Grant: g.ID()})
				if err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}

// BenchmarkWrite writes to a target through what Open returns.
func BenchmarkWrite(b *testing.B) {
	for name, terms := range map[string]grant.Terms{"plain": {}, "rate": {Rate: 1 << 40}, "month": {Month: 1 << 60}} {
		b.Run(name, func(b *testing.B) {
			w, g := benchWorld(b, terms)
			conn, err := w.exit.Open(b.Context(), tunnel.From{Peer: w.entry.cert}, wire.Open{Kind: wire.OpenStream, Grant: g.ID()})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := conn.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchWorld(b *testing.B, terms grant.Terms) (*world, grant.Grant) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(struct{ io.Writer }{io.Discard}, conn)
				conn.Close()
			}()
		}
	}()
	w := newWorld(b, allow.List{}, net.DefaultResolver)
	w.config.Log = slog.New(slog.DiscardHandler)
	w.exit = New(w.config)
	g := w.grant("tcp://"+l.Addr().String(), func(p *grant.Permission) { p.Terms = terms })
	return w, g
}
