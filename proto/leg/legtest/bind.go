// Package legtest binds UDP legs in tests and benchmarks. A portal reads its
// socket itself: it has other things to hear there.
package legtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/netport/netport/proto/leg"
)

// Bind runs the bind that is under way in b over conn with the relay at relay,
// and returns the address that the relay sees. It fails only with ctx or with
// conn. It owns the reads of conn while it runs, and drops what is no answer to
// it: what the other portal sends meanwhile is lost.
func Bind(ctx context.Context, b *leg.Binder, conn *net.UDPConn, relay netip.AddrPort) (netip.AddrPort, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		conn.SetReadDeadline(time.Time{})
	}()
	buf := make([]byte, leg.MaxAnswerLen+1)
	for {
		packet, again := b.Packet(time.Now())
		if packet != nil {
			if _, err := conn.WriteToUDPAddrPort(packet, relay); err != nil {
				return netip.AddrPort{}, fmt.Errorf("bind at relay %v: %w", relay, err)
			}
		}
		if mapped, bound := b.Mapped(); bound {
			return mapped, nil
		}
		conn.SetReadDeadline(again)
		if ctx.Err() != nil {
			return netip.AddrPort{}, fmt.Errorf("bind at relay %v: no answer: %w", relay, context.Cause(ctx))
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("bind at relay %v: %w", relay, err)
		}
		if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == relay {
			b.Handle(buf[:n])
		}
	}
}
