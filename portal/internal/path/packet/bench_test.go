package packet

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/quic-go/quic-go"
)

// BenchmarkQUIC compares QUIC over Endpoints with quic-go on bare sockets, from
// port to port on loopback.
func BenchmarkQUIC(b *testing.B) {
	loopback := netip.MustParseAddr("127.0.0.1")
	port := func(a net.Addr) netip.AddrPort {
		return netip.AddrPortFrom(loopback, a.(*net.UDPAddr).AddrPort().Port())
	}
	config := &quic.Config{InitialPacketSize: 1200}
	b.Run("bare", func(b *testing.B) {
		client, server := proofs(b)
		var transports [2]*quic.Transport
		for i := range transports {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			transports[i] = &quic.Transport{Conn: c}
			defer transports[i].Close()
		}
		l, err := transports[1].Listen(server, config)
		if err != nil {
			b.Fatal(err)
		}
		from, err := transports[0].Dial(b.Context(), net.UDPAddrFromAddrPort(port(transports[1].Conn.LocalAddr())), client, config)
		if err != nil {
			b.Fatal(err)
		}
		to, err := l.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		pump(b, from, to)
	})
	b.Run("endpoints", func(b *testing.B) {
		client, server := proofs(b)
		var ends [2]*Endpoint
		sockets := [2]*Sockets{newSockets(b), newSockets(b)}
		first := open(b, sockets[1], netip.MustParseAddrPort("127.0.0.1:9"), false, surprised(b)) // opens the socket
		ends[0] = open(b, sockets[0], port(first.line.LocalAddr()), false, surprised(b))
		ends[1] = open(b, sockets[1], port(ends[0].line.LocalAddr()), false, surprised(b))
		ends[1].Expect(server, config)
		from, err := ends[0].Dial(b.Context(), client, config)
		if err != nil {
			b.Fatal(err)
		}
		to, err := ends[1].Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		pump(b, from, to)
	})
}

// pump sends 1 MiB for each round.
func pump(b *testing.B, from, to *quic.Conn) {
	defer from.CloseWithError(0, "")
	const round = 1 << 20
	out, err := from.OpenUniStream()
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, round)
	b.SetBytes(round)
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := out.Write(chunk); err != nil {
				return
			}
		}
		out.Close()
	}()
	in, err := to.AcceptUniStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, in); err != nil || n != int64(b.N)*round {
		b.Errorf("%d bytes: %v", n, err)
	}
}
