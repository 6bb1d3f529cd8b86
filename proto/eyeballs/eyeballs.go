// Package eyeballs dials one host that has several addresses: IPv6 and IPv4
// in turns, the next one as soon as one has failed or has been silent for a
// moment, and the first connection wins (RFC 8305, "Happy Eyeballs"). It
// dials the addresses it is given and looks up none, so that they are the
// ones that were checked.
package eyeballs

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"
)

// Stagger is how long one attempt is alone (RFC 8305 section 5).
const Stagger = 250 * time.Millisecond

// Dial calls dial for the addresses in the order of Order; see Race.
func Dial(ctx context.Context, addrs []netip.AddrPort, dial func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	return Race(ctx, Stagger, Order(addrs), dial)
}

// Race is RaceAt for candidates that are all the same time apart.
func Race[C any, T io.Closer](ctx context.Context, apart time.Duration, candidates []C, dial func(context.Context, C) (T, error)) (T, error) {
	at := make([]time.Duration, len(candidates))
	for i := range at {
		at[i] = time.Duration(i) * apart
	}
	return RaceAt(ctx, at, candidates, dial)
}

// RaceAt calls dial for the candidates, which must be at least one, until one
// succeeds, and returns its connection. Each is called at its time, counted
// from the call of RaceAt; times never fall. When one has failed, the next is
// called at once, and all after it come earlier by as much. If none succeeds,
// RaceAt returns the error of the first that failed. All attempts have ended
// when it returns, and their connections but the one returned are closed.
func RaceAt[C any, T io.Closer](ctx context.Context, at []time.Duration, candidates []C, dial func(context.Context, C) (T, error)) (T, error) {
	if len(candidates) == 1 {
		return dial(ctx, candidates[0])
	}
	won, err := race(ctx, at, func(ctx context.Context, i int) (io.Closer, error) { return dial(ctx, candidates[i]) })
	conn, _ := won.(T)
	return conn, err
}

// race is RaceAt for any candidates, which are known by their number: programs have it once.
func race(ctx context.Context, at []time.Duration, dial func(context.Context, int) (io.Closer, error)) (io.Closer, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		conn io.Closer
		err  error
	}
	results := make(chan result)
	running := 0
	defer func() {
		cancel()
		for ; running > 0; running-- {
			if r := <-results; r.err == nil {
				r.conn.Close()
			}
		}
	}()
	var first error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := 0; ; {
		select {
		case <-timer.C:
			if next < len(at) {
				number := next
				running++
				go func() {
					conn, err := dial(ctx, number)
					results <- result{conn, err}
				}()
				if next++; next < len(at) {
					timer.Reset(at[next] - at[next-1])
				}
			}
		case r := <-results:
			running--
			if r.err == nil {
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			if running == 0 && next == len(at) {
				return nil, first
			}
			timer.Reset(0)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Order returns the addresses with their families in turns, beginning with
// that of the first; within a family their order stays (RFC 8305 section 4).
func Order(addrs []netip.AddrPort) []netip.AddrPort {
	var same, other []netip.AddrPort
	for _, a := range addrs {
		if a.Addr().Is4() == addrs[0].Addr().Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	ordered := make([]netip.AddrPort, 0, len(addrs))
	for i := range same {
		ordered = append(ordered, same[i])
		if i < len(other) {
			ordered = append(ordered, other[i])
		}
	}
	if len(other) > len(same) {
		ordered = append(ordered, other[len(same):]...)
	}
	return ordered
}
