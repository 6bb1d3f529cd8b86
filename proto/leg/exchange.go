package leg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// Exchange runs the bind of b over conn with the relay at relay until the leg
// is bound, and returns the address that the relay sees. It fails only with ctx
// or with conn. It owns the reads of conn while it runs, and drops what is
// no answer: the relay sends no data to a leg before it is bound.
func (b *Binder) Exchange(ctx context.Context, conn *net.UDPConn, relay netip.AddrPort) (netip.AddrPort, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		conn.SetReadDeadline(time.Time{})
	}()
	buf := make([]byte, MaxAnswerLen+1)
	for {
		packet, again := b.Packet(time.Now())
		if packet != nil {
			if _, err := conn.WriteToUDPAddrPort(packet, relay); err != nil {
				return netip.AddrPort{}, fmt.Errorf("bind %v at relay %v: %w", b.id, relay, err)
			}
		}
		if mapped, bound := b.Mapped(); bound {
			return mapped, nil
		}
		conn.SetReadDeadline(again)
		if ctx.Err() != nil {
			return netip.AddrPort{}, fmt.Errorf("bind %v at relay %v: no answer: %w", b.id, relay, context.Cause(ctx))
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("bind %v at relay %v: %w", b.id, relay, err)
		}
		if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == relay {
			b.Handle(buf[:n])
		}
	}
}
