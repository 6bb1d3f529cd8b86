// Package overquictest serves over QUIC in tests.
package overquictest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/netport/netport/proto/overquic"
)

// Serve gives each connection that comes over QUIC to at to use, in a goroutine of its own, and
// closes it when use has returned. When the test ends Serve takes no more, cancels the context of
// those that run and waits for them. It lets everybody in; a handshake that fails is left to who
// has dialled to tell. It returns where it listens.
func Serve(t testing.TB, at netip.AddrPort, cfg *tls.Config, use func(context.Context, *overquic.Conn)) netip.AddrPort {
	t.Helper()
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	l, err := overquic.Listen(socket, cfg, overquic.Options{
		Enter: func(net.Addr) (func(), bool) { return func() {}, true }, Failed: func(net.Addr, error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			caller, err := l.Accept(ctx)
			if err != nil {
				return
			}
			serving.Go(func() {
				defer caller.Close()
				if stream, err := caller.Take(ctx); err == nil {
					use(ctx, stream)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		l.Close()
	})
	return l.Addr().(*net.UDPAddr).AddrPort()
}
