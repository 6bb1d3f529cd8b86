package portmap

import (
	"context"
	"log/slog"
	"net/netip"
)

// Find asks the gateway of this network which of the protocols it speaks, and changes
// nothing there. An error says of each why not. It takes some seconds where nothing answers.
func Find(ctx context.Context, gateway netip.Addr) (protocol string, err error) {
	at := placeOf(gateway)
	if !at.gateway.IsValid() {
		return "", errNoGateway
	}
	r := newRouter(at, protocolsAt(pcpPort, ssdpPort), slog.New(slog.DiscardHandler))
	if r.find(ctx); r.speaks == nil {
		return "", r.why
	}
	return r.protocols[r.kind].name, nil
}
