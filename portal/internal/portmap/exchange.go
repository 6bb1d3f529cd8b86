package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// pauses are how long an answer is waited for before the question is repeated, and at last
// given up: RFC 6886 section 3.1 without its later ones, for a home's router answers at once.
var pauses = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}

// maxAnswer is what an answer has at most (RFC 6887 section 7).
const maxAnswer = 1100

// errSilent is the error of a router that does not answer.
var errSilent = errors.New("no answer")

// ask sends a request to a router's port and waits for what take takes as its answer. Only
// what comes from that port of the router is looked at: the socket is connected, so the
// kernel drops all else.
func ask(ctx context.Context, at place, port uint16, request []byte, take func([]byte) bool) error {
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.local, 0))
	conn, err := net.DialUDP("udp4", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.gateway, port)))
	if err != nil {
		return fmt.Errorf("ask %s: %w", at.gateway, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make([]byte, maxAnswer+1)
	for _, pause := range pauses {
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("ask %s port %d: %w", at.gateway, port, err)
		}
		conn.SetReadDeadline(time.Now().Add(pause))
		for {
			n, err := conn.Read(answer)
			var timeout net.Error
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("ask %s port %d: %w", at.gateway, port, ctx.Err())
			case errors.As(err, &timeout) && timeout.Timeout():
			case err != nil: // refused: nobody listens
				return fmt.Errorf("ask %s port %d: %w", at.gateway, port, err)
			case n <= maxAnswer && take(answer[:n]):
				return nil
			default:
				continue
			}
			break
		}
	}
	return errSilent
}
