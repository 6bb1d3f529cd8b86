package path

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/wire"
)

// Measure returns the round trip to a relay that the server at that address has
// named: how long a TCP connection takes to it, the better of two. The error says
// why the relay is not dialled, or that it was not reached.
func (f *Finder) Measure(ctx context.Context, place wire.RelayPlace, server netip.Addr) (time.Duration, error) {
	if err := CheckAddresses(place.Name, place.Addresses, server); err != nil {
		return 0, err
	}
	var addrs []netip.AddrPort
	for _, a := range place.Addresses {
		addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), place.Port))
	}
	first, err := eyeballs.Race(ctx, eyeballs.Stagger, eyeballs.Order(addrs), f.timeConnect)
	if err != nil {
		return 0, fmt.Errorf("measure relay %q: %w", place.Name, err)
	}
	first.Close()
	second, err := f.timeConnect(ctx, first.to)
	if err != nil {
		return first.took, nil
	}
	second.Close()
	return min(first.took, second.took), nil
}

// timed is a connection and how long it took.
type timed struct {
	net.Conn
	to   netip.AddrPort
	took time.Duration
}

func (f *Finder) timeConnect(ctx context.Context, to netip.AddrPort) (*timed, error) {
	began := time.Now()
	conn, err := f.Proxy.DialContext(ctx, &net.Dialer{KeepAlive: -1}, to.String())
	if err != nil {
		return nil, err
	}
	return &timed{conn, to, time.Since(began)}, nil
}
